#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/partition.h"
#include "core/result_sink.h"
#include "core/split_plan.h"
#include "dist/communicator.h"
#include "dist/exchange.h"
#include "dist/held_partials.h"
#include "dist/route.h"
#include "dist/runs.h"
#include "dist/wire.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// What an exchange took and moved, as seen by one rank.
struct CombineStats {
  double exchange_seconds = 0;  ///< packing, sending
  double wait_seconds = 0;      ///< for other ranks that were not ready yet
  double merge_seconds = 0;     ///< and checking
  std::int64_t partials_sent = 0;
  std::int64_t bytes_sent = 0;
};

/// How partials are combined.
struct CombineSettings {
  ExchangeKind exchange = ExchangeKind::kAuto;
  /// With bf16 a rank merges all that it has of a request first (`Runs`), and sends one partial.
  WireElement element = WireElement::kFp32;
  int threads = 1;
  /// For tests and experiments: takes runs of so many ranks for nodes. 0: the nodes as they are.
  int pretended_ranks_per_node = 0;
  /// What kAuto decides by between nodes, if it knows of them.
  CostModel cost;
};

/// Brings the partials of shared requests to their owners and merges them along the canonical tree.
/// May be used again and again: post(), then finish(). One thread at a time may use it. With fp32
/// on the wire the bytes of the results depend neither on the partition nor on the kind of
/// exchange; else a rank first merges all that it has of a request, and they depend on both.
class Combine {
 public:
  /// Collective; all arguments are the same on all ranks and outlive the object.
  /// @throws CollectiveError if the exchange cannot be done on these nodes
  Combine(const Communicator& comm, const Batch& batch, const Partition& partition,
          const CombineSettings& settings);

  /// Follows the partition and the lengths of the batch, which have changed; nothing is under way.
  /// Keeps the kind of exchange, communicators, and memory and windows that are large enough.
  /// Collective. @throws CollectiveError as the constructor
  void reroute();

  /// Which way partials go; never kAuto.
  ExchangeKind kind() const { return kind_ == ExchangeKind::kAuto ? ExchangeKind::kP2p : kind_; }
  /// Whether partials travel at all, between any two ranks.
  bool is_idle() const { return stages_.empty(); }

  /// Starts with `open`, the items of `items` (this rank's) that the local decode left unfinished.
  /// Their partials must stay until finish() returns, and are written to.
  void post(std::span<const WorkItem> items, const std::vector<kernels::OpenItem>& open);

  /// Whether partials travel on only while someone calls progress().
  bool needs_progress() const;
  /// Moves on without waiting, on the calling thread alone; true once all partials are here.
  bool progress();

  /// Waits for what is still missing, merges, and finishes the rows that this rank owns.
  /// @throws MpiError if a message is damaged or is not what the partition says.
  void finish(ResultSink& results);

  /// Since the last post().
  const CombineStats& stats() const { return stats_; }

 private:
  /// One hop, and the ranks of the job by their rank in its exchange.
  struct Stage {
    Hop hop;
    int number = 0;
    std::vector<int> ranks;
    std::unique_ptr<Exchange> exchange;
    std::vector<Message> sent;      ///< of each lot
    std::vector<Message> received;  ///< of each lot
  };
  /// The node of each rank, and those of this one's.
  struct Nodes {
    Communicator mine;
    std::vector<int> node_of_rank;
  };

  Nodes find_nodes() const;
  double cost_of(const Hop& hop) const;
  bool two_levels_pay(const Hop& direct, const TwoLevelRoute& route) const;
  bool is_exact() const { return settings_.element == WireElement::kFp32; }
  /// What the partials that travel are of.
  const Batch& batch() const { return runs_ ? runs_->batch() : batch_; }
  const Partition& partition() const { return runs_ ? runs_->partition() : partition_; }

  void choose_kind(const Hop& direct, const TwoLevelRoute& route);
  void set_stage(Hop hop, int number, const Communicator& comm, ExchangeKind kind);
  MessageLabel label(int hop, int from, int to) const;
  void start_stage(int threads);
  void receive_stage();
  void fold_stage(int threads);

  const Communicator& comm_;
  const Batch& batch_;
  const Partition& partition_;
  CombineSettings settings_;
  ExchangeKind kind_;  ///< kAuto until something travels
  std::optional<Runs> runs_;
  std::optional<Nodes> nodes_;
  std::vector<Stage> stages_;
  std::size_t stage_ = 0;  ///< the one under way; stages_.size(): all is here
  std::uint64_t sequence_ = 0;
  std::optional<HeldPartials> held_;
  CombineStats stats_;
};

}  // namespace mla::dist
