#include "core/kv_view.h"

#include <gtest/gtest.h>

namespace mla {
namespace {

TEST(KvView, FindsRowsThroughTheBlockTable) {
  const std::int32_t block_table[] = {5, 0};
  std::uint16_t element = 0;
  const KvView view{.data = &element,
                    .page_block_size = 4,
                    .page_stride = 1000,
                    .token_stride = 100,
                    .head_stride = 10};
  EXPECT_EQ(view.row(block_table, 0, 0) - view.data, 5000);
  EXPECT_EQ(view.row(block_table, 3, 2) - view.data, 5320);
  EXPECT_EQ(view.row(block_table, 5, 1) - view.data, 110);
}

TEST(KvView, ReachesPastTwoToThe31Elements) {
  const std::int32_t block_table[] = {2147483646};
  const KvView view{.data = nullptr,
                    .page_block_size = 64,
                    .page_stride = 64 * 576,
                    .token_stride = 576,
                    .head_stride = 576};
  const auto address = reinterpret_cast<std::uintptr_t>(view.row(block_table, 63, 0));
  EXPECT_EQ(address, (std::uintptr_t{2147483646} * 64 + 63) * 576 * sizeof(std::uint16_t));
}

}  // namespace
}  // namespace mla
