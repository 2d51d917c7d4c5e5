#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "core/kv_view.h"

namespace mla::launch::bench {

/// Zeroed memory on huge pages where the system grants them.
class HugeMemory {
 public:
  HugeMemory() = default;
  /// @throws Error if there is not enough.
  explicit HugeMemory(std::int64_t bytes);
  HugeMemory(HugeMemory&& other) noexcept;
  HugeMemory& operator=(HugeMemory&& other) noexcept;
  ~HugeMemory();

  void* data() const { return data_; }
  std::int64_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  std::int64_t size_ = 0;
};

/// Random cache elements, from which the paged cache of any row length and page size is cut.
class Pool {
 public:
  explicit Pool(std::int64_t bytes) : memory_(bytes) {}

  /// Generates the contents anew, on all threads.
  void fill(DType dtype);

  DType dtype() const { return dtype_; }
  std::span<const std::uint16_t> elements() const {
    return {static_cast<const std::uint16_t*>(memory_.data()),
            static_cast<std::size_t>(memory_.size() / 2)};
  }
  /// As pages of `page_block_size` rows of `d_qk` elements.
  KvView view(std::int64_t page_block_size, std::int64_t d_qk) const;

 private:
  HugeMemory memory_;
  DType dtype_ = DType::kBf16;
};

/// Deals out the pages [0, pages) in a random order, over and over: a page comes again only after
/// all the others have.
class PageDealer {
 public:
  explicit PageDealer(std::int64_t pages);

  /// The next `count` pages, at most all of them.
  const std::int32_t* deal(std::int64_t count);

 private:
  std::vector<std::int32_t> order_;  // twice, so that no run of pages has to wrap around
  std::int64_t pages_;
  std::int64_t next_ = 0;
};

/// The smallest pool out of which nothing is still in a cache when its pages come again.
std::int64_t cold_pool_bytes();

}  // namespace mla::launch::bench
