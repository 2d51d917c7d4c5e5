#pragma once

#include <span>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "core/split_plan.h"
#include "dist/communicator.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// What an exchange moved, as seen by one rank.
struct CombineStats {
  double exchange_seconds = 0;  ///< packing, sending, waiting
  double merge_seconds = 0;
  std::int64_t partials_sent = 0;
  std::int64_t bytes_sent = 0;
};

/// Sends the partials of requests that other ranks own to their owners, receives those of the
/// requests this rank owns, and merges them along the canonical tree into `results`.
///
///     before: the maximal nodes of its own chunks    rank 0: a[0..3)   rank 1: a[3..4) b[0..4)
///     after:  the results of the requests it owns    rank 0: a         rank 1: b
///
/// `open` are those of `items` (this rank's) that the local decode left unfinished. Collective
/// over the ranks that share a request; the bytes of the results do not depend on the partition.
/// @throws MpiError if a peer breaks the protocol.
CombineStats combine(const Communicator& comm, const Batch& batch, const Partition& partition,
                     std::span<const WorkItem> items, const std::vector<kernels::OpenItem>& open,
                     int threads, ResultBuilder& results);

}  // namespace mla::dist
