#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "core/chunk_tree.h"
#include "core/partial.h"
#include "core/split_plan.h"
#include "kernels/backend.h"

namespace mla::kernels {

/// Tokens of chunk `chunk`.
inline Range chunk_token_range(const DecodeParams& params, std::int64_t chunk) {
  return {chunk * params.chunk_tokens,
          std::min((chunk + 1) * params.chunk_tokens, params.context_len)};
}

/// The first token that no call for `chunks` reads, whatever chunks it goes on with.
inline std::int64_t end_of_tokens(const DecodeParams& params, Range chunks) {
  const std::int64_t end = params.more == nullptr ? chunks.end : params.more->furthest();
  return chunk_token_range(params, end - 1).end;
}

/// Floats that `fold_decode` needs at `spill` for any request of at most `max_context_len` tokens.
inline std::int64_t fold_spill_floats(std::int64_t d_v, std::int64_t chunk_tokens,
                                      std::int64_t max_context_len) {
  return max_fold_depth(ceil_div(max_context_len, chunk_tokens)) *
         partial_floats(kMaxRowsPerItem, d_v);
}

/// A NaN is no maximum, so a row whose visible scores are all NaN comes out of a chunk with m =
/// -inf, like one that saw no key. Its l tells the two apart: m becomes NaN, and with it the
/// result.
inline void keep_nan(const PartialView& partial) {
  for (std::int64_t row = 0; row < partial.rows; ++row) {
    if (partial.m_log2[row] == kEmptyM && partial.l[row] != 0) {
      partial.m_log2[row] = std::numeric_limits<float>::quiet_NaN();
    }
  }
}

/// `HostBackend::decode` for a backend that knows how to compute one chunk: it calls
/// `compute_chunk(Range tokens, PartialView result)` for each of `chunks` and folds the partials
/// along the canonical tree.
///
/// Slot i of the fold's stack is the i-th of the final nodes in `nodes` for as long as there is
/// one; what is deeper, while the fold goes on, lies at `spill`. So nothing is copied at the end:
///
///   slot     0   1   2 | 3   4 ..
///          +---+---+---+---+---+--
///          |   nodes   |   spill
///          +---+---+---+---+---+--
///
/// With chunks to go on with, whose number nobody knows, slot 0 is `nodes` and the others are where
/// `params.more` says.
template <class ComputeChunk>
void fold_decode(const DecodeParams& params, Range chunks, float* nodes, float* spill,
                 ComputeChunk&& compute_chunk) {
  const std::int64_t rows = params.rows.size();
  const std::int64_t d_v = params.shape.d_v;
  const std::int64_t floats = partial_floats(rows, d_v);
  const std::int64_t final_nodes =
      params.more == nullptr ? count_maximal_nodes(chunks, params.num_chunks()) : 1;
  float* const deeper = params.more == nullptr ? spill : params.more->other_nodes();
  const auto slot = [=](std::int64_t i) {
    float* storage = i < final_nodes ? nodes + i * floats : deeper + (i - final_nodes) * floats;
    return partial_at(storage, rows, d_v);
  };

  TreeFold fold(params.num_chunks());
  for (std::int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
    compute_chunk(chunk_token_range(params, chunk), slot(fold.size()));
    keep_nan(slot(fold.size()));
    fold.push({0, chunk});
    while (fold.combine()) merge_partials(slot(fold.size() - 1), slot(fold.size()));
    if (params.chunks_done != nullptr) {
      params.chunks_done->fetch_add(1, std::memory_order_relaxed);
    }
    if (chunk + 1 == chunks.end && params.more != nullptr) {
      chunks.end = params.more->extend(chunks.end);
    }
  }
}

}  // namespace mla::kernels
