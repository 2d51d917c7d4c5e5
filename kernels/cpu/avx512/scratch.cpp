#include "kernels/cpu/avx512/scratch.h"

#include <algorithm>

#include "kernels/workspace.h"

namespace mla::kernels::avx512 {

Scratch lay_out(std::byte* workspace, const MlaShape& shape, std::int64_t spill_floats,
                std::int64_t& bytes) {
  WorkspaceCutter cut(workspace);
  Scratch s{};
  s.rows = cut.take<const std::uint16_t*>(kBlockTokens);
  s.ahead = cut.take<const std::uint16_t*>(kBlockTokens);
  auto* zero_row = cut.take<std::uint16_t>(shape.d_qk);
  s.zero_row = zero_row;
  s.visible = cut.take<std::int32_t>(kMaxRowsPerItem);
  s.rescale = cut.take<float>(kMaxRowsPerItem);
  s.scores = cut.take<float>(kBlockTokens * kMaxRowsPerItem);
  s.weights = cut.take<std::uint32_t>(kBlockTokens / 2 * kMaxRowsPerItem);
  // A call is for one element type, so the packed queries of the two share their place.
  s.q_floats = cut.take<float>(kMaxRowsPerItem * shape.d_qk);
  s.q_pairs = reinterpret_cast<std::uint32_t*>(s.q_floats);
  s.k_tile = cut.take<float>(round_up(shape.d_qk, kLanes) * kTileTokens);
  s.spill = cut.take<float>(spill_floats);
  if (workspace != nullptr) std::fill_n(zero_row, shape.d_qk, std::uint16_t{0});
  bytes = cut.bytes();
  return s;
}

}  // namespace mla::kernels::avx512
