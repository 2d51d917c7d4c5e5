#include "dist/combine.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/chunk_tree.h"
#include "core/error.h"
#include "dist/activity.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kRowsPerTask = 8;  // 16 KiB of each partial

/// The ranks of the job that are on a node.
std::vector<int> ranks_where(std::span<const int> node_of_rank, int node) {
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < node_of_rank.size(); ++rank) {
    if (node_of_rank[rank] == node) ranks.push_back(static_cast<int>(rank));
  }
  return ranks;
}

std::vector<Parcel> parcels_of(const Batch& batch, WireElement element,
                               const std::vector<Lot>& lots, std::span<const int> ranks) {
  std::vector<Parcel> parcels;
  for (const Lot& lot : lots) {
    const auto peer = std::lower_bound(ranks.begin(), ranks.end(), lot.peer) - ranks.begin();
    parcels.push_back({static_cast<int>(peer), message_bytes(batch, element, lot.items)});
  }
  return parcels;
}

/// The nodes that folding `nodes` leaves, each with the memory that its value will lie in.
std::vector<NodePartial> after_fold(std::vector<NodePartial> nodes, std::int64_t num_chunks) {
  if (nodes.empty()) return nodes;
  const std::int64_t rows = nodes[0].partial.rows;
  for (NodePartial& node : nodes) node.partial.rows = 0;  // no row is merged
  fold_partials(nodes, num_chunks);
  for (NodePartial& node : nodes) node.partial.rows = rows;
  return nodes;
}

/// Some rows of an item that are folded together.
struct FoldTask {
  const WorkItem* item = nullptr;
  const std::vector<NodePartial>* nodes = nullptr;
  Range rows;  // from 0
};

void run_task(const FoldTask& task, std::int64_t num_chunks, ResultBuilder* results) {
  std::vector<NodePartial> nodes;
  for (const NodePartial& node : *task.nodes) {
    nodes.push_back({node.node, rows_of(node.partial, task.rows)});
  }
  fold_partials(nodes, num_chunks);
  if (results == nullptr || !is_root(nodes, num_chunks)) return;
  WorkItem item = *task.item;
  const std::int64_t first = item.rows.begin;
  item.rows = {first + task.rows.begin, first + task.rows.end};
  results->finish(item, nodes[0].partial);
}

}  // namespace

Combine::Combine(const Communicator& comm, const Batch& batch, const Partition& partition,
                 const CombineSettings& settings)
    : comm_(comm),
      batch_(batch),
      partition_(partition),
      settings_(settings),
      kind_(settings.exchange) {
  Hop direct = direct_hop(batch, partition, comm.rank());
  if (direct.idle) {
    if (kind_ == ExchangeKind::kAuto) kind_ = ExchangeKind::kP2p;
    return;
  }
  if (kind_ == ExchangeKind::kP2p || kind_ == ExchangeKind::kAlltoallv) {
    add_stage(std::move(direct), 0, comm, kind_);
    return;
  }
  nodes_.emplace(find_nodes());
  TwoLevelRoute route = two_level_route(batch, partition, comm.rank(), nodes_->node_of_rank);
  choose_kind(route.within_nodes);
  if (kind_ == ExchangeKind::kP2p) {
    add_stage(std::move(direct), 0, comm, kind_);
    return;
  }
  add_stage(std::move(route.within_nodes), 0, nodes_->mine, ExchangeKind::kShm);
  add_stage(std::move(route.between_nodes), 1, comm, ExchangeKind::kP2p);
}

Combine::Nodes Combine::find_nodes() const {
  const int pretended = settings_.pretended_ranks_per_node;
  Communicator mine = pretended > 0 ? comm_.split(comm_.rank() / pretended) : comm_.node();
  const int first_rank = mine.all_gather(comm_.rank()).front();
  return {std::move(mine), comm_.all_gather(first_rank)};
}

/// Settles on kShm, kTwoLevel or, if that was left to us, kP2p.
void Combine::choose_kind(const Hop& first_hop) {
  const std::vector<int> ranks =
      ranks_where(nodes_->node_of_rank, nodes_->node_of_rank[comm_.rank()]);
  const int fits_here =
      shm_fits(nodes_->mine, parcels_of(batch_, settings_.element, first_hop.receives, ranks));
  const auto fits = comm_.all_gather(fits_here);
  const bool fits_everywhere =
      std::all_of(fits.begin(), fits.end(), [](int fit) { return fit != 0; });
  const bool one_node = nodes_->mine.size() == comm_.size();
  if (kind_ == ExchangeKind::kAuto) {
    if (!fits_everywhere) {
      kind_ = ExchangeKind::kP2p;
    } else {
      kind_ = one_node ? ExchangeKind::kShm : ExchangeKind::kTwoLevel;
    }
    return;
  }
  comm_.together([&] {
    if (kind_ == ExchangeKind::kShm && !one_node) {
      throw Unsupported("--exchange", "shm on several nodes", "two-level, p2p or alltoallv");
    }
    if (!fits_everywhere) {
      throw Unsupported("--exchange",
                        std::string(to_string(kind_)) + " with too little in /dev/shm",
                        "p2p or alltoallv, or more shared memory");
    }
  });
}

void Combine::add_stage(Hop hop, int number, const Communicator& comm, ExchangeKind kind) {
  if (hop.idle) return;
  Stage stage{.hop = std::move(hop), .number = number, .ranks = comm.all_gather(comm_.rank())};
  auto sends = parcels_of(batch_, settings_.element, stage.hop.sends, stage.ranks);
  auto receives = parcels_of(batch_, settings_.element, stage.hop.receives, stage.ranks);
  comm_.together([&] {
    switch (kind) {
      case ExchangeKind::kShm:
        stage.exchange = make_shm_exchange(comm, std::move(sends), std::move(receives));
        break;
      case ExchangeKind::kAlltoallv:
        stage.exchange = make_alltoallv_exchange(comm, std::move(sends), std::move(receives));
        break;
      default:
        stage.exchange = make_p2p_exchange(comm, std::move(sends), std::move(receives));
    }
  });
  stages_.push_back(std::move(stage));
}

MessageLabel Combine::label(const Stage& stage, int from, int to) const {
  return {.from = from,
          .to = to,
          .hop = stage.number,
          .sequence = sequence_,
          .element = settings_.element};
}

void Combine::post(std::span<const WorkItem> items, const std::vector<kernels::OpenItem>& open) {
  stats_ = {};
  ++sequence_;
  stage_ = 0;
  for (const kernels::OpenItem& o : open) {
    const WorkItem& item = items[o.item];
    for (const OwnedPart& part : owned_parts(batch_, partition_, item)) {
      Held& held = held_[ItemKey(part.item)] = {part.item, {}};
      for (const NodePartial& node : o.nodes) {
        held.nodes.push_back({node.node, rows_of(node.partial, part.rows)});
      }
    }
  }
  start_stage(settings_.threads);
}

void Combine::start_stage(int threads) {
  if (stage_ == stages_.size()) return;
  const Stopwatch watch;
  Stage& stage = stages_[stage_];
  for (std::size_t i = 0; i < stage.hop.sends.size(); ++i) {
    const Lot& lot = stage.hop.sends[i];
    std::vector<std::vector<NodePartial>> partials;
    for (const WireItem& item : lot.items) {
      const auto held = held_.extract(ItemKey(item.item));
      partials.push_back(held.empty() ? std::vector<NodePartial>{} : held.mapped().nodes);
      stats_.partials_sent += static_cast<std::int64_t>(item.nodes.size());
    }
    const std::span<std::byte> message = stage.exchange->outgoing(i);
    pack_message(batch_, label(stage, comm_.rank(), lot.peer), lot.items, partials, threads,
                 message);
    stats_.bytes_sent += static_cast<std::int64_t>(message.size());
  }
  stage.exchange->post();
  stats_.exchange_seconds += watch.seconds();
}

bool Combine::needs_progress() const {
  return stage_ + 1 < stages_.size() ||
         (stage_ < stages_.size() && stages_[stage_].exchange->needs_progress());
}

bool Combine::progress() {
  while (stage_ < stages_.size() && stages_[stage_].exchange->progress()) {
    if (stage_ + 1 == stages_.size()) return true;
    receive_stage(1);
    fold_held(1, nullptr);
    start_stage(1);
  }
  return stage_ == stages_.size();
}

/// Takes over what has arrived in the stage under way, and goes on to the next.
void Combine::receive_stage(int threads) {
  const Stopwatch watch;
  Stage& stage = stages_[stage_++];
  stage.widened.clear();
  for (std::size_t i = 0; i < stage.hop.receives.size(); ++i) {
    const Lot& lot = stage.hop.receives[i];
    UnpackedMessage unpacked = unpack_message(batch_, label(stage, lot.peer, comm_.rank()),
                                              lot.items, threads, stage.exchange->incoming(i));
    for (std::size_t k = 0; k < lot.items.size(); ++k) {
      Held& held = held_[ItemKey(lot.items[k].item)];
      held.item = lot.items[k].item;
      const auto& nodes = unpacked.partials[k];
      held.nodes.insert(held.nodes.end(), nodes.begin(), nodes.end());
    }
    stage.widened.push_back(std::move(unpacked.widened));
  }
  stats_.exchange_seconds += watch.seconds();
}

/// Folds what is here of each item, in place; with `results`, that is all, and is finished.
void Combine::fold_held(int threads, ResultBuilder* results) {
  const Stopwatch watch;
  std::vector<FoldTask> tasks;
  for (auto& [key, held] : held_) {
    const std::int64_t num_chunks = batch_.num_chunks(batch_.requests[key.request]);
    std::sort(held.nodes.begin(), held.nodes.end(), [&](const auto& a, const auto& b) {
      return chunks_of(a.node, num_chunks).begin < chunks_of(b.node, num_chunks).begin;
    });
    const std::int64_t rows = held.item.rows.size();
    for (std::int64_t row = 0; row < rows; row += kRowsPerTask) {
      tasks.push_back({&held.item, &held.nodes, {row, std::min(rows, row + kRowsPerTask)}});
    }
  }
  const auto count = static_cast<std::int64_t>(tasks.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (std::int64_t t = 0; t < count; ++t) {
    const Request& request = batch_.requests[tasks[t].item->request];
    run_task(tasks[t], batch_.num_chunks(request), results);
  }
  for (auto& [key, held] : held_) {
    const std::int64_t num_chunks = batch_.num_chunks(batch_.requests[key.request]);
    held.nodes = after_fold(std::move(held.nodes), num_chunks);
    if (results != nullptr && !is_root(held.nodes, num_chunks)) {
      throw MpiError("combine", "the partials of request " + std::to_string(key.request) +
                                    " do not cover each of its chunks once");
    }
  }
  stats_.merge_seconds += watch.seconds();
}

void Combine::finish(ResultBuilder& results) {
  enter(Phase::kExchange);
  while (stage_ < stages_.size()) {
    const Stopwatch watch;
    {
      const Waiting waiting;
      stages_[stage_].exchange->wait();
    }
    stats_.wait_seconds += watch.seconds();
    receive_stage(settings_.threads);
    if (stage_ == stages_.size()) break;
    fold_held(settings_.threads, nullptr);
    start_stage(settings_.threads);
  }
  enter(Phase::kMerge);
  fold_held(settings_.threads, &results);
  held_.clear();
  for (Stage& stage : stages_) stage.exchange->release();
}

}  // namespace mla::dist
