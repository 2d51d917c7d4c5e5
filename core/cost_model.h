#pragma once

#include <cstdint>

#include "core/batch.h"

namespace mla {

/// Rows that kernels compute scores of together, the missing ones of the last vector too.
inline constexpr std::int64_t kRowsPerVector = 16;

/// Predicts what work costs a rank, in FLOP-equivalents. Only ratios matter to a plan. The defaults
/// are those of a rank of one thread; core/calibration.h makes a model of what was measured.
struct CostModel {
  double flop_per_loaded_byte = 40;  ///< cost of reading or generating one byte of cache
  double flop_per_kv_byte = 7;       ///< what one byte of cold cache adds, once for all rows
  /// What values count for the rows that a vector of 16 lacks: 0, as if they were not there, to 1,
  /// as for rows. (Scores are always computed for whole vectors.)
  double padded_values = 0;
  double flop_per_merged_float = 8;    ///< cost of folding one float of a partial into another
  double flop_per_shared_float = 200;  ///< the same between threads, whose caches it moves between
  double flop_per_wire_byte = 40;      ///< cost of packing, sending and merging one byte
  double flop_per_message = 2e6;       ///< latency of one message between two ranks
  double flop_per_far_byte = 40;       ///< flop_per_wire_byte between nodes
  double flop_per_far_message = 2e6;   ///< flop_per_message between nodes
  int ranks_per_node = 0;              ///< runs of so many ranks share a node; 0: all of them do
  double flop_per_second = 0;          ///< FLOP-equivalents that a rank does; 0: unknown

  /// Whether a message between these ranks leaves its node.
  bool is_far(int from, int to) const {
    return ranks_per_node > 0 && from / ranks_per_node != to / ranks_per_node;
  }

  /// Computing chunk `chunk` of `request` for `rows` query rows that share one KV head.
  double tile_chunk(const Batch& batch, const Request& request, std::int64_t chunk,
                    std::int64_t rows) const;

  /// Computing chunk `chunk` of `request` for all its queries of `heads` heads.
  double chunk(const Batch& batch, const Request& request, std::int64_t chunk,
               std::int64_t heads) const;
};

/// Tokens that chunk `chunk` of `request` holds: chunk_tokens but for the last one.
std::int64_t tokens_in_chunk(const Batch& batch, const Request& request, std::int64_t chunk);

}  // namespace mla
