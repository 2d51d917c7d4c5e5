#pragma once

#include <atomic>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "core/result.h"
#include "dist/combine.h"
#include "dist/communicator.h"
#include "kernels/backend.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// Where the time of one decode went on one rank, and what it moved.
struct DecodeStats {
  double prepare_seconds = 0;  ///< memory, plans, the copying of tensors to a GPU
  double compute_seconds = 0;
  CombineStats combine;
};

/// The distributed decode of one batch: computes this rank's pieces as `options` say, sends
/// partials to their owners and merges. Returns the results this rank owns.
///
/// `inputs` holds the tensors of this rank's pieces of `partition`, which must be for comm.size()
/// ranks and the same on all of them. With one backend and `options.exact` the results are the same
/// bits for any partition, number of ranks and number of threads. Collective.
/// @throws CollectiveError if a rank cannot compute as the options say (short GPU memory, say).
/// @throws MpiError on this rank alone if a peer breaks the protocol.
std::vector<ResultSlice> decode(const Communicator& comm, const Batch& batch,
                                const Partition& partition, const kernels::RankInputs& inputs,
                                const kernels::Backend& backend,
                                const kernels::DecoderOptions& options, DecodeStats& stats,
                                std::atomic<std::int64_t>* chunks_done = nullptr);

}  // namespace mla::dist
