#include "core/huge_pages.h"

#include <fstream>
#include <string>

#include "core/range.h"

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

namespace mla {

void advise_huge_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::int64_t bytes) noexcept {
#ifdef MADV_HUGEPAGE
  const auto address = reinterpret_cast<std::intptr_t>(begin);
  const std::int64_t first = round_up(std::int64_t{address}, kHugePageBytes);
  const std::int64_t end = (address + bytes) / kHugePageBytes * kHugePageBytes;
  if (first >= end) return;
  ::madvise(static_cast<std::byte*>(begin) + (first - address),
            static_cast<std::size_t>(end - first), MADV_HUGEPAGE);
#endif
}

void refuse_huge_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::int64_t bytes) noexcept {
#ifdef MADV_NOHUGEPAGE
  const auto address = reinterpret_cast<std::intptr_t>(begin);
  const std::int64_t first = address / kHugePageBytes * kHugePageBytes;
  const std::int64_t end = round_up(std::int64_t{address + bytes}, kHugePageBytes);
  ::madvise(static_cast<std::byte*>(begin) - (address - first),
            static_cast<std::size_t>(end - first), MADV_NOHUGEPAGE);
#endif
}

std::int64_t huge_page_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string field; rollup >> field;) {
    std::int64_t kibibytes = 0;
    if (field == "AnonHugePages:" && rollup >> kibibytes) return kibibytes * 1024;
  }
  return -1;
}

}  // namespace mla
