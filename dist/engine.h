#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "core/result.h"
#include "dist/combine.h"
#include "dist/communicator.h"
#include "dist/stopwatch.h"
#include "dist/work_groups.h"
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
  ExchangeKind exchange = ExchangeKind::kAuto;
  int pretended_ranks_per_node = 0;  ///< as in CombineSettings
  CostModel cost;                    ///< as in CombineSettings
};

/// Takes results of this rank as they become final: several times in one decode, on the thread
/// that called it. Each (request, heads) that the rank owns comes once, in any order.
using OnResults = std::function<void(std::vector<ResultSlice>)>;

/// The distributed decode of one batch: computes this rank's pieces, sends partials to their
/// owners, merges, and hands over the results that this rank owns. Keeps plans, memory and windows,
/// so it may run again and again, as the tensors of `inputs` change.
///
///     compute what others wait for | post | compute own requests, in groups | finish, merge
///                                    '---- partials travel meanwhile ----'
///
/// With one backend and `compute.exact` the results are the same bits for any partition, number of
/// ranks and number of threads. Without, partials travel as bf16, in half the bytes, and GPUs cut
/// keys as they like: the same bits for the same job.
class Decoder {
 public:
  /// `inputs` holds the tensors of this rank's pieces of `partition`, which must be for comm.size()
  /// ranks and the same on all of them. All arguments but the settings must outlive the decoder.
  /// Collective. @throws CollectiveError if a rank cannot compute as the settings say (short GPU
  /// memory, say).
  Decoder(const Communicator& comm, const Batch& batch, const Partition& partition,
          const kernels::RankInputs& inputs, const kernels::Backend& backend,
          const DecodeSettings& settings);

  /// Collective. @throws MpiError on this rank alone if a peer breaks the protocol; and what
  /// `on_results` throws.
  DecodeStats run(const OnResults& on_results, std::atomic<std::int64_t>* chunks_done = nullptr);

  /// Which way partials go.
  ExchangeKind exchange() const { return combine_.kind(); }

 private:
  const std::vector<kernels::OpenItem>& compute(std::size_t group, ResultBuilder& results,
                                                std::atomic<std::int64_t>* chunks_done,
                                                DecodeStats& stats);

  const Batch& batch_;
  Stopwatch prepare_watch_;  // starts before the others
  double prepare_seconds_ = 0;
  Combine combine_;
  std::vector<WorkGroup> groups_;
  std::vector<std::unique_ptr<kernels::NodeDecoder>> decoders_;  // of the groups
};

/// Runs a Decoder once. Collective.
DecodeStats decode(const Communicator& comm, const Batch& batch, const Partition& partition,
                   const kernels::RankInputs& inputs, const kernels::Backend& backend,
                   const DecodeSettings& settings, const OnResults& on_results,
                   std::atomic<std::int64_t>* chunks_done = nullptr);

}  // namespace mla::dist
