#pragma once

#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// Some pieces of a rank, computed in one run.
struct WorkGroup {
  std::vector<Piece> pieces;
  kernels::RankInputs inputs;    ///< of these pieces
  std::vector<Ownership> owned;  ///< what the rank owns of their results
};

/// A rank's work in the order that hides the exchange. The first group has the pieces that other
/// ranks have chunks of, and requests without chunks; it may be empty. Those that follow have
/// pieces of the rank's own, whose results are final as soon as they are computed.
///
/// Threads wait for one another at the end of a group, so groups with few chunks for each thread
/// are not worth it: then all is in the first. Local.
std::vector<WorkGroup> group_work(const Batch& batch, const Partition& partition, int rank,
                                  const kernels::RankInputs& inputs, int threads);

/// All in one group. Local.
std::vector<WorkGroup> ungrouped_work(const Partition& partition, int rank,
                                      const kernels::RankInputs& inputs);

}  // namespace mla::dist
