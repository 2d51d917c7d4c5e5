#pragma once

#include <cstddef>
#include <cstdint>

#include "core/batch.h"
#include "core/range.h"
#include "core/split_plan.h"

namespace mla::kernels::cpu {

inline constexpr int kMaxBlockTokens = 128;  ///< tokens between two looks at the running maximum
/// Pairs of one token pair in `residuals`: whole vectors are stored at any of the 128 places.
inline constexpr int kResidualLd = static_cast<int>(kMaxRowsPerItem) + 16;

/// Arrays of one thread. `lanes` is the number of floats in a vector, a group is as many query
/// rows; `ld`, the distance between the tokens of a score array, is the number of query rows
/// rounded up to whole groups.
struct Scratch {
  const std::uint16_t** rows;     ///< [128] cache rows of this block
  const std::uint16_t** ahead;    ///< [128] and of the tokens some way ahead, to prefetch
  const std::uint16_t** next;     ///< [128] pieces of what comes after the call, to prefetch
  const std::uint16_t* zero_row;  ///< [d_qk] of any type: what a missing token reads
  std::int32_t* visible;          ///< [128] what each query row sees of the chunk
  float* rescale;                 ///< [128] 2^(old maximum - new maximum)
  float* scores;                  ///< [tokens][ld]; fp32: then the weights, in place
  std::uint32_t* weights;         ///< bf16: [tokens / 2][ld] pairs of the weights of two tokens
  std::uint32_t* residuals;  ///< bf16: [tokens / 2][128 + 16] pairs of what rounding took from them
  const std::int32_t* all_rows;  ///< [128] 0, 1, 2 ...
  std::int32_t* heavy_rows;      ///< bf16: [128] query rows that `residuals` is for
  std::uint32_t* q_pairs;        ///< bf16: [groups][d_qk / 2][lanes] pairs of elements
  float* q_floats;               ///< fp32: [groups][d_qk][lanes]
  float* kv;                     ///< fp32: [ceil(d_qk / lanes)][tokens][lanes] the block
  float* spill;                  ///< what `fold_decode` asks for
};

/// Lays the arrays out in a workspace; `bytes` becomes what they take. A null workspace is only
/// sized.
Scratch lay_out(std::byte* workspace, const MlaShape& shape, std::int64_t spill_floats,
                std::int64_t& bytes);

}  // namespace mla::kernels::cpu
