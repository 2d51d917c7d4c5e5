#include "kernels/cpu/scratch.h"

#include <algorithm>
#include <numeric>

#include "kernels/workspace.h"

namespace mla::kernels::cpu {

Scratch lay_out(std::byte* workspace, const MlaShape& shape, std::int64_t spill_floats,
                std::int64_t& bytes) {
  WorkspaceCutter cut(workspace);
  Scratch s{};
  s.rows = cut.take<const std::uint16_t*>(kMaxBlockTokens);
  s.ahead = cut.take<const std::uint16_t*>(kMaxBlockTokens);
  s.next = cut.take<const std::uint16_t*>(kMaxBlockTokens);
  auto* zero_row = cut.take<std::uint16_t>(2 * shape.d_qk);
  s.zero_row = zero_row;
  s.visible = cut.take<std::int32_t>(kMaxRowsPerItem);
  s.rescale = cut.take<float>(kMaxRowsPerItem);
  s.scores = cut.take<float>(kMaxBlockTokens * kMaxRowsPerItem);
  s.weights = cut.take<std::uint32_t>(kMaxBlockTokens / 2 * kMaxRowsPerItem);
  s.residuals = cut.take<std::uint32_t>(kMaxBlockTokens / 2 * kResidualLd);
  auto* all_rows = cut.take<std::int32_t>(kMaxRowsPerItem);
  s.all_rows = all_rows;
  s.heavy_rows = cut.take<std::int32_t>(kMaxRowsPerItem);
  // A call is for one scheme, so the packed queries of the two share their place.
  s.q_floats = cut.take<float>(kMaxRowsPerItem * shape.d_qk);
  s.q_pairs = reinterpret_cast<std::uint32_t*>(s.q_floats);
  s.kv = cut.take<float>(round_up(shape.d_qk, 16) * kMaxBlockTokens);
  s.spill = cut.take<float>(spill_floats);
  if (workspace != nullptr) {
    std::fill_n(zero_row, 2 * shape.d_qk, std::uint16_t{0});
    std::iota(all_rows, all_rows + kMaxRowsPerItem, 0);
  }
  bytes = cut.bytes();
  return s;
}

}  // namespace mla::kernels::cpu
