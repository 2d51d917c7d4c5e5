#include "kernels/cpu/amx/scratch.h"

#include <algorithm>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/workspace.h"

namespace mla::kernels::amx {

Scratch lay_out(std::byte* workspace, const MlaShape& shape, std::int64_t spill_floats,
                std::int64_t& bytes) {
  const std::int64_t d_qk = round_up(shape.d_qk, kStep);
  WorkspaceCutter cut(workspace);
  Scratch s{};
  s.rows = cut.take<const std::uint16_t*>(kBlockTokens);
  s.ahead = cut.take<const std::uint16_t*>(kBlockTokens);
  auto* zero_row = cut.take<std::uint16_t>(d_qk);
  s.zero_row = zero_row;
  s.key_rows = cut.take<std::uint16_t>(kBlockTokens * d_qk);
  s.queries = cut.take<std::uint32_t>(kMaxGroups * d_qk / kStep * kTileWords);
  s.scores = cut.take<float>(kScoredGroups * kBlockTokens * kLanes);
  s.pairs = cut.take<std::uint32_t>(kTileWords);
  s.weights = cut.take<std::uint32_t>(kMaxGroups * kWeightSteps * kTileWords);
  s.residuals = cut.take<std::uint32_t>(kMaxGroups * kWeightSteps * kTileWords);
  s.heavy_rows = cut.take<std::int32_t>(kMaxRowsPerItem);
  s.values = cut.take<std::uint32_t>(2 * kPanelTiles * kWeightSteps * kTileWords);
  s.sums = cut.take<float>(kPanelTiles * kTileWords);
  s.last_rows = cut.take<float>(kLanes * shape.d_v);
  s.visible = cut.take<std::int32_t>(kMaxRowsPerItem);
  s.spill = cut.take<float>(spill_floats);
  if (workspace != nullptr) std::fill_n(zero_row, d_qk, std::uint16_t{0});
  bytes = cut.bytes();
  return s;
}

}  // namespace mla::kernels::amx
