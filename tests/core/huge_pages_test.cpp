#include "core/huge_pages.h"

#include <cstddef>

#include <gtest/gtest.h>

#include "core/aligned_buffer.h"

namespace mla {
namespace {

TEST(HugePages, AdviceLeavesMemoryAsItWas) {
  AlignedBuffer<std::byte> buffer(5 << 20);
  buffer.span()[3 << 20] = std::byte{7};
  for (const std::int64_t begin : {0, 1, 4096}) {
    for (const std::int64_t bytes : {0, 1, 2 << 20, 4 << 20}) {
      advise_huge_pages(buffer.data() + begin, bytes);
      refuse_huge_pages(buffer.data() + begin, bytes);
    }
  }
  EXPECT_EQ(buffer.span()[3 << 20], std::byte{7});
}

TEST(HugePages, AreCountedInWholePagesWhereTheSystemSays) {
  const std::int64_t bytes = huge_page_bytes();
  if (bytes < 0) GTEST_SKIP() << "no /proc/self/smaps_rollup";
  EXPECT_EQ(bytes % 4096, 0);
}

}  // namespace
}  // namespace mla
