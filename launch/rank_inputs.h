#pragma once

#include <span>

#include "core/partition.h"
#include "kernels/local_decode.h"
#include "proto/shard_data.h"

namespace mla::launch {

/// The tensors of `pieces` as kernels take them; they stay in `data`.
kernels::RankInputs rank_inputs(const proto::ShardData& data, std::span<const Piece> pieces);

}  // namespace mla::launch
