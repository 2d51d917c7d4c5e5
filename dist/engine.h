#pragma once

#include <atomic>
#include <functional>
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

/// How `decode` works.
struct DecodeSettings {
  kernels::DecoderOptions compute;
};

/// Takes results of this rank as they become final: several times in one decode, on the thread
/// that called it. Each (request, heads) that the rank owns comes once, in any order.
using OnResults = std::function<void(std::vector<ResultSlice>)>;

/// The distributed decode of one batch: computes this rank's pieces, sends partials to their
/// owners, merges, and hands the results that this rank owns to `on_results`.
///
/// `inputs` holds the tensors of this rank's pieces of `partition`, which must be for comm.size()
/// ranks and the same on all of them. With one backend and `compute.exact` the results are the same
/// bits for any partition, number of ranks and number of threads. Collective.
/// @throws CollectiveError if a rank cannot compute as the settings say (short GPU memory, say).
/// @throws MpiError on this rank alone if a peer breaks the protocol; and what `on_results` throws.
DecodeStats decode(const Communicator& comm, const Batch& batch, const Partition& partition,
                   const kernels::RankInputs& inputs, const kernels::Backend& backend,
                   const DecodeSettings& settings, const OnResults& on_results,
                   std::atomic<std::int64_t>* chunks_done = nullptr);

}  // namespace mla::dist
