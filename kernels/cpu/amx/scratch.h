#pragma once

#include <cstddef>
#include <cstdint>

#include "core/batch.h"
#include "core/split_plan.h"

namespace mla::kernels::amx {

inline constexpr int kBlockTokens = 128;  ///< tokens between two looks at the rows' bases
inline constexpr int kLanes = 16;         ///< query rows of a group: of one tile or vector
inline constexpr int kStep = 32;          ///< elements of a dot product that one tile holds
inline constexpr int kMaxGroups = static_cast<int>(kMaxRowsPerItem) / kLanes;
inline constexpr int kKeyTiles = kBlockTokens / 16;
inline constexpr int kWeightSteps = kBlockTokens / kStep;
inline constexpr int kScoredGroups = 4;  ///< whose scores are kept: two at work, two for softmax
inline constexpr int kPanelTiles = 2;    ///< of 16 value elements, interleaved at a time
inline constexpr int kPanel = kPanelTiles * 16;
inline constexpr int kTurnTokens = 64;  ///< whose scores are summed in one direction
static_assert(kBlockTokens == 2 * kTurnTokens, "one half of a block is summed backwards");

/// Arrays of one thread. A "tile" is 1 KiB in one piece: 16 rows of 16 floats or of 16 pairs of
/// bf16.
struct Scratch {
  const std::uint16_t** rows;     ///< [128] cache rows of this block
  const std::uint16_t** ahead;    ///< [128] and of the next one, to prefetch
  const std::uint16_t* zero_row;  ///< [d_qk, whole steps] what a missing token reads
  std::uint16_t* key_rows;        ///< [128][d_qk, whole steps] copies where rows lie irregularly
  std::uint32_t* queries;         ///< [groups][steps] tiles: a pair of elements x 16 query rows
  float* scores;                  ///< [4][128][16] token x 16 query rows, of the last four groups
  std::uint32_t* pairs;           ///< [16][16] token pair x 16 query rows
  std::uint32_t* weights;         ///< [groups][4] tiles: query row x 16 token pairs
  std::uint32_t* residuals;       ///< [8][4] tiles likewise: what rounding took from some rows
  std::int32_t* heavy_rows;       ///< [128] query rows that `residuals` is for
  std::uint32_t* values;          ///< [2 panels][2][4] tiles: token pair x 16 value elements
  float* sums;                    ///< [2] tiles: query row x 16 value elements
  float* last_rows;               ///< [16][d_v] outputs of a last group of less than 16 rows
  std::int32_t* visible;          ///< [128] what each query row sees of the chunk
  float* spill;                   ///< what `fold_decode` asks for
};

/// Lays the arrays out in a workspace; `bytes` becomes what they take. A null workspace is only
/// sized.
Scratch lay_out(std::byte* workspace, const MlaShape& shape, std::int64_t spill_floats,
                std::int64_t& bytes);

}  // namespace mla::kernels::amx
