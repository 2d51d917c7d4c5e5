#pragma once

#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "kernels/local_decode.h"

namespace mla::dist {

/// A small batch with its whole cache and all queries in memory, the same on every rank.
class Problem {
 public:
  struct Lengths {
    std::int64_t query_len;
    std::int64_t context_len;
  };

  Problem(const MlaShape& shape, const std::vector<Lengths>& requests, std::uint64_t seed);

  const Batch& batch() const { return batch_; }

  /// The same requests, last one first, on the same cache.
  Problem reversed() const;

  /// The tensors of some pieces, which stay in this object.
  kernels::RankInputs inputs(std::span<const Piece> pieces) const;

 private:
  Batch batch_;
  std::vector<std::uint16_t> cache_;
  std::vector<std::vector<std::uint16_t>> queries_;  // [requests][query_len, h_q, d_qk]
};

}  // namespace mla::dist
