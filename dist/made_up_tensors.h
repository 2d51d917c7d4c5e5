#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/partition.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// Tensors for some pieces of a batch whose contents do not matter, to measure with. Every block
/// has a cache page of its own, as far as kMostCacheBytes last; then the same pages come again. All
/// pages are alike, and so are the queries of all pieces.
class MadeUpTensors {
 public:
  /// More than a core's caches hold.
  static constexpr std::int64_t kMostCacheBytes = 32 << 20;

  /// Of the sizes in `batch`, which needs neither block tables nor sources. Local.
  /// @throws std::bad_alloc
  MadeUpTensors(const Batch& batch, std::span<const Piece> pieces);

  /// Of these pieces, and of any of their heads and chunks that begin with the first ones.
  const kernels::RankInputs& inputs() const { return inputs_; }

 private:
  AlignedBuffer<std::uint16_t> cache_;
  std::vector<std::uint16_t> query_;  // of as many tokens as any request has, all heads
  std::vector<std::vector<std::int32_t>> block_tables_;  // [pieces]
  kernels::RankInputs inputs_;
};

}  // namespace mla::dist
