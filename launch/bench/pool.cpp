#include "launch/bench/pool.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "core/generator.h"
#include "core/range.h"
#include "launch/machine.h"

namespace mla::launch::bench {

void Pool::fill(DType dtype) {
  constexpr std::int64_t kBlock = std::int64_t{1} << 18;
  dtype_ = dtype;
  auto* const data = static_cast<std::uint16_t*>(memory_.data());
  const std::int64_t size = bytes_ / 2;
  const std::int64_t blocks = ceil_div(size, kBlock);
#pragma omp parallel for schedule(static)
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t count = std::min(kBlock, size - block * kBlock);
    generate_elements(1, GeneratedTensor::kKvCache, block, 0, dtype,
                      {data + block * kBlock, static_cast<std::size_t>(count)});
  }
}

KvView Pool::view(std::int64_t page_block_size, std::int64_t d_qk) const {
  return {.data = elements().data(),
          .dtype = dtype_,
          .page_block_size = page_block_size,
          .page_stride = page_block_size * d_qk,
          .token_stride = d_qk,
          .head_stride = d_qk};
}

PageDealer::PageDealer(std::int64_t pages) : order_(2 * pages), pages_(pages) {
  const auto middle = order_.begin() + pages;
  std::iota(order_.begin(), middle, 0);
  std::shuffle(order_.begin(), middle, std::mt19937_64(1));
  std::copy(order_.begin(), middle, middle);
}

const std::int32_t* PageDealer::deal(std::int64_t count) {
  const std::int32_t* const dealt = order_.data() + next_;
  next_ = (next_ + count) % pages_;
  return dealt;
}

std::int64_t cold_pool_bytes() {
  return std::max(std::int64_t{512} << 20, 4 * last_level_cache_bytes());
}

}  // namespace mla::launch::bench
