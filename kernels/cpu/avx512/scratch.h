#pragma once

#include <cstddef>
#include <cstdint>

#include "core/batch.h"
#include "core/range.h"
#include "core/split_plan.h"

namespace mla::kernels::avx512 {

inline constexpr int kLanes = 16;         ///< query rows of one vector
inline constexpr int kBlockTokens = 128;  ///< tokens between two looks at the running maximum
inline constexpr int kTileTokens = 16;    ///< most tokens of one register tile of scores
/// Pairs of one token pair in `residuals`: whole vectors are stored at any of the 128 places.
inline constexpr int kResidualLd = static_cast<int>(kMaxRowsPerItem) + kLanes;
inline constexpr int kMaxGroups = static_cast<int>(kMaxRowsPerItem) / kLanes;

/// Arrays of one thread. `ld`, the distance between the tokens of a score array, is the number of
/// query rows rounded up to full vectors.
struct Scratch {
  const std::uint16_t** rows;     ///< [128] cache rows of this block
  const std::uint16_t** ahead;    ///< [128] and of the next one, to prefetch
  const std::uint16_t* zero_row;  ///< [d_qk] what a missing token reads
  std::int32_t* visible;          ///< [128] what each query row sees of the chunk
  float* rescale;                 ///< [128] 2^(old maximum - new maximum)
  float* scores;                  ///< [128][ld]; fp16: then the weights, in place
  std::uint32_t* weights;         ///< bf16: [64][ld] pairs of the weights of two tokens
  std::uint32_t* residuals;       ///< bf16: [64][128 + 16] pairs of what rounding took from them
  const std::int32_t* all_rows;   ///< [128] 0, 1, 2 ...
  std::int32_t* heavy_rows;       ///< bf16: [128] query rows that `residuals` is for
  std::uint32_t* q_pairs;         ///< bf16: [groups][d_qk / 2][16] pairs of elements
  float* q_floats;                ///< fp16: [groups][d_qk][16]
  float* k_tile;                  ///< fp16: [ceil(d_qk / 16)][16 tokens][16 elements]
  float* spill;                   ///< what `fold_decode` asks for
};

/// Lays the arrays out in a workspace; `bytes` becomes what they take. A null workspace is only
/// sized.
Scratch lay_out(std::byte* workspace, const MlaShape& shape, std::int64_t spill_floats,
                std::int64_t& bytes);

}  // namespace mla::kernels::avx512
