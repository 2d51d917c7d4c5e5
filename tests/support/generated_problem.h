#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/partition.h"
#include "kernels/node_decoder.h"
#include "tests/support/problem.h"

namespace mla::test {

/// A small batch with its whole cache and all queries in memory, the same on every rank. Chunks are
/// 64 tokens, pages are shuffled. The tensors depend neither on the page size nor on the lengths:
/// shorter requests have the first tokens of longer ones.
class GeneratedProblem {
 public:
  using Lengths = RequestSizes;

  GeneratedProblem(const MlaShape& shape, const std::vector<Lengths>& requests,
                   std::uint64_t seed = 1, std::int64_t page_block_size = 16);

  const Batch& batch() const { return batch_; }

  /// The same requests, last one first, on the same cache.
  GeneratedProblem reversed() const;

  /// The tensors of some pieces, which stay in this object.
  kernels::RankInputs inputs(std::span<const Piece> pieces) const;

 private:
  void fill_cache(std::int64_t request, std::uint64_t seed);

  Batch batch_;
  std::vector<std::uint16_t> cache_;
  std::vector<std::vector<std::uint16_t>> queries_;  // [requests][query_len, h_q, d_qk]
};

}  // namespace mla::test
