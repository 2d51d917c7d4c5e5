#pragma once

#include <cstddef>
#include <cstdint>

namespace mla {

/// The size of a huge page of x86-64, and of arm64 with pages of 4 KiB.
inline constexpr std::int64_t kHugePageBytes = std::int64_t{1} << 21;

/// Asks the system to back the whole huge pages within `bytes` bytes at `begin` by huge pages when
/// they are first touched. Only advice: without them the memory is as good, if slower.
void advise_huge_pages(void* begin, std::int64_t bytes) noexcept;

/// Asks the system to back all pages that `bytes` bytes at `begin` lie on, out to the next huge
/// pages, by small ones when they are first touched.
void refuse_huge_pages(void* begin, std::int64_t bytes) noexcept;

/// Bytes of this process's memory that lie on huge pages; -1 where the system does not say.
std::int64_t huge_page_bytes();

}  // namespace mla
