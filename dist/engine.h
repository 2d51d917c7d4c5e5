#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "core/result.h"
#include "core/result_builder.h"
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
/// that called it. Each (request, heads) that the rank owns comes once, in any order. The decoder
/// uses their memory again.
using OnResults = std::function<void(const std::vector<ResultSlice>&)>;

/// What a rank has tensors of: pieces of any of the partitions that it works with.
struct Holdings {
  std::vector<Piece> pieces;
  kernels::RankInputs inputs;  ///< of these pieces
};

/// The distributed decode of one batch: computes this rank's pieces, sends partials to their
/// owners, merges, and hands over the results that this rank owns. Keeps plans, memory and windows,
/// so it may run again and again, as the tensors change and as the batch grows.
///
///     compute what others wait for | post | compute own requests, in groups | finish, merge
///                                    '---- partials travel meanwhile ----'
///
/// With one backend and `compute.exact` the results are the same bits for any partition, number of
/// ranks and number of threads. Without, a rank sends one partial of bf16 for a request, and GPUs
/// cut keys as they like: the same bits for the same partition and exchange.
class Decoder {
 public:
  /// `partition` is for comm.size() ranks and the same on all of them; `holdings` have this rank's
  /// pieces of it. `batch` has the longest lengths that will be decoded. Both may change between
  /// runs, if the decoder is told. All arguments but the settings must outlive it.
  /// Collective. @throws CollectiveError if a rank cannot compute as the settings say (short GPU
  /// memory, say).
  Decoder(const Communicator& comm, const Batch& batch, const Partition& partition,
          Holdings holdings, const kernels::Backend& backend, const DecodeSettings& settings);
  /// Of a single partition: `inputs` are those of this rank's pieces.
  Decoder(const Communicator& comm, const Batch& batch, const Partition& partition,
          const kernels::RankInputs& inputs, const kernels::Backend& backend,
          const DecodeSettings& settings);

  /// Follows the partition, and the batch's lengths with it. Keeps memory, communicators and
  /// windows where they are large enough. Collective. @throws CollectiveError as the constructor
  void follow_partition();
  /// Follows lengths that have changed within each request's last chunk: nobody has other chunks
  /// than before. Local. @throws what the backend's `make_decoder` throws
  void follow_lengths();

  /// Collective. @throws MpiError on this rank alone if a peer breaks the protocol; and what
  /// `on_results` throws.
  DecodeStats run(const OnResults& on_results, std::atomic<std::int64_t>* chunks_done = nullptr);

  /// Which way partials go.
  ExchangeKind exchange() const { return combine_.kind(); }

 private:
  void make_groups();
  void plan_group(std::size_t group);
  const std::vector<kernels::OpenItem>& compute(std::size_t group,
                                                std::atomic<std::int64_t>* chunks_done,
                                                DecodeStats& stats);

  const Communicator& comm_;
  const Batch& batch_;
  const Partition& partition_;
  Holdings holdings_;
  const kernels::Backend& backend_;
  kernels::DecoderOptions options_;
  bool on_gpu_;              // which is best given all at once
  Stopwatch prepare_watch_;  // starts before the others
  double prepare_seconds_ = 0;
  Combine combine_;
  std::vector<WorkGroup> groups_;
  std::vector<std::unique_ptr<ResultBuilder>> results_;          // of the groups
  std::vector<std::unique_ptr<kernels::NodeDecoder>> decoders_;  // of the groups, or more
};

/// Runs a Decoder once. Collective.
DecodeStats decode(const Communicator& comm, const Batch& batch, const Partition& partition,
                   const kernels::RankInputs& inputs, const kernels::Backend& backend,
                   const DecodeSettings& settings, const OnResults& on_results,
                   std::atomic<std::int64_t>* chunks_done = nullptr);

}  // namespace mla::dist
