#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "core/kv_view.h"
#include "proto/file_io.h"

namespace mla::launch::bench {

/// Random cache elements, from which the paged cache of any row length and page size is cut.
class Pool {
 public:
  /// @throws Error if there is not enough memory.
  explicit Pool(std::int64_t bytes) : memory_(bytes, "a cache; see --max-cache"), bytes_(bytes) {}

  /// Generates the contents anew, on all threads.
  void fill(DType dtype);

  DType dtype() const { return dtype_; }
  std::span<const std::uint16_t> elements() const {
    return {static_cast<const std::uint16_t*>(memory_.data()),
            static_cast<std::size_t>(bytes_ / 2)};
  }
  /// As pages of `page_block_size` rows of `d_qk` elements.
  KvView view(std::int64_t page_block_size, std::int64_t d_qk) const;

 private:
  proto::MappedMemory memory_;
  std::int64_t bytes_;
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
