#include "launch/rank_inputs.h"

namespace mla::launch {

kernels::RankInputs rank_inputs(const proto::ShardData& data, std::span<const Piece> pieces) {
  kernels::RankInputs inputs{.kv = data.kv(), .pieces = {}};
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const auto piece = static_cast<std::int64_t>(p);
    const proto::QueryView q = data.query(piece);
    inputs.pieces.push_back({.block_table = data.block_table(piece),
                             .q = q.data,
                             .first_head = pieces[p].heads.begin,
                             .q_token_stride = q.token_stride,
                             .q_head_stride = q.head_stride});
  }
  return inputs;
}

}  // namespace mla::launch
