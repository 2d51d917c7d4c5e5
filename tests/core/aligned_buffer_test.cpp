#include "core/aligned_buffer.h"

#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace mla {
namespace {

TEST(AlignedBuffer, StartsOnACacheLineOrAHugePage) {
  for (const std::size_t size : {1, 100, 524287, 524288, 1000000}) {
    AlignedBuffer<float> buffer(size);
    ASSERT_EQ(buffer.size(), size);
    ASSERT_EQ(buffer.span().size(), size);
    const std::uintptr_t alignment = size * sizeof(float) >= 1 << 21 ? 1 << 21 : 64;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % alignment, 0U);
    buffer.span().front() = 1;
    buffer.span().back() = 2;
  }
}

TEST(AlignedBuffer, MayBeEmptyAndMoves) {
  EXPECT_EQ(AlignedBuffer<float>().size(), 0U);
  EXPECT_EQ(AlignedBuffer<float>(0).data(), nullptr);
  AlignedBuffer<float> a(10);
  const float* data = a.data();
  const AlignedBuffer<float> b = std::move(a);
  EXPECT_EQ(b.data(), data);
}

}  // namespace
}  // namespace mla
