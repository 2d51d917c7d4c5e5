#include "dist/combine.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"
#include "dist/activity.h"
#include "dist/packing.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

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

}  // namespace

Combine::Combine(const Communicator& comm, const Batch& batch, const Partition& partition,
                 const CombineSettings& settings)
    : comm_(comm),
      batch_(batch),
      partition_(partition),
      settings_(settings),
      kind_(settings.exchange) {
  reroute();
}

void Combine::reroute() {
  if (!is_exact()) runs_.emplace(batch_, partition_);
  held_.emplace(batch(), runs_.has_value());
  Hop direct = direct_hop(batch(), partition(), comm_.rank());
  if (direct.idle) {
    stages_.clear();
    return;
  }
  if (kind_ == ExchangeKind::kP2p || kind_ == ExchangeKind::kAlltoallv) {
    set_stage(std::move(direct), 0, comm_, kind_);
    return;
  }
  if (!nodes_) nodes_.emplace(find_nodes());
  TwoLevelRoute route = two_level_route(batch(), partition(), comm_.rank(), nodes_->node_of_rank);
  if (stages_.empty()) choose_kind(direct, route);
  if (kind_ == ExchangeKind::kP2p) {
    set_stage(std::move(direct), 0, comm_, kind_);
    return;
  }
  set_stage(std::move(route.within_nodes), 0, nodes_->mine, ExchangeKind::kShm);
  set_stage(std::move(route.between_nodes), 1, comm_, ExchangeKind::kP2p);
}

Combine::Nodes Combine::find_nodes() const {
  const int pretended = settings_.pretended_ranks_per_node;
  Communicator mine = pretended > 0 ? comm_.split(comm_.rank() / pretended) : comm_.node();
  const int first_rank = mine.all_gather(comm_.rank()).front();
  return {std::move(mine), comm_.all_gather(first_rank)};
}

/// What a hop costs by the model on the slowest rank. Ranks of a node share its way to the others,
/// so each is taken to send its even part of what leaves the node. Collective.
double Combine::cost_of(const Hop& hop) const {
  struct Costs {
    double near = 0;
    double far = 0;
  } mine;
  const CostModel& cost = settings_.cost;
  const std::vector<int>& nodes = nodes_->node_of_rank;
  for (const Lot& lot : hop.sends) {
    const auto bytes = static_cast<double>(message_bytes(batch(), WireElement::kFp32, lot.items));
    if (nodes[lot.peer] == nodes[comm_.rank()]) {
      mine.near += cost.flop_per_message + bytes * cost.flop_per_wire_byte;
    } else {
      mine.far += cost.flop_per_far_message + bytes * cost.flop_per_far_byte;
    }
  }
  double far_of_node = 0;
  for (const Costs& rank : nodes_->mine.all_gather(mine)) far_of_node += rank.far;
  const std::vector<double> all = comm_.all_gather(mine.near + far_of_node / nodes_->mine.size());
  return *std::max_element(all.begin(), all.end());
}

/// Whether partials are sooner there over two levels. Collective.
bool Combine::two_levels_pay(const Hop& direct, const TwoLevelRoute& route) const {
  if (settings_.cost.ranks_per_node == 0) return true;
  return cost_of(route.within_nodes) + cost_of(route.between_nodes) <= cost_of(direct);
}

/// Settles on kShm, kTwoLevel or, if that was left to us, kP2p.
void Combine::choose_kind(const Hop& direct, const TwoLevelRoute& route) {
  const std::vector<int> ranks =
      ranks_where(nodes_->node_of_rank, nodes_->node_of_rank[comm_.rank()]);
  const int fits_here = shm_fits(
      nodes_->mine, parcels_of(batch(), settings_.element, route.within_nodes.receives, ranks));
  const auto fits = comm_.all_gather(fits_here);
  const bool fits_everywhere =
      std::all_of(fits.begin(), fits.end(), [](int fit) { return fit != 0; });
  const bool one_node = nodes_->mine.size() == comm_.size();
  if (kind_ == ExchangeKind::kAuto) {
    if (!fits_everywhere) {
      kind_ = ExchangeKind::kP2p;
    } else if (one_node) {
      kind_ = ExchangeKind::kShm;
    } else {
      kind_ = two_levels_pay(direct, route) ? ExchangeKind::kTwoLevel : ExchangeKind::kP2p;
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

/// Makes stage `number` what `hop` asks for; an idle one is none.
void Combine::set_stage(Hop hop, int number, const Communicator& comm, ExchangeKind kind) {
  auto stage = std::find_if(stages_.begin(), stages_.end(),
                            [=](const Stage& s) { return s.number >= number; });
  const bool exists = stage != stages_.end() && stage->number == number;
  if (hop.idle) {
    if (exists) stages_.erase(stage);
    return;
  }
  if (!exists) {
    stage = stages_.insert(stage, Stage{.number = number, .ranks = comm.all_gather(comm_.rank())});
  }
  stage->hop = std::move(hop);
  stage->sent.clear();
  for (const Lot& lot : stage->hop.sends) {
    stage->sent.emplace_back(batch(), label(number, comm_.rank(), lot.peer), lot.items);
  }
  stage->received.clear();
  for (const Lot& lot : stage->hop.receives) {
    stage->received.emplace_back(batch(), label(number, lot.peer, comm_.rank()), lot.items);
  }
  const auto sends = parcels_of(batch(), settings_.element, stage->hop.sends, stage->ranks);
  const auto receives = parcels_of(batch(), settings_.element, stage->hop.receives, stage->ranks);
  comm_.together([&] {
    if (exists) {
      stage->exchange->resize(sends, receives);
    } else if (kind == ExchangeKind::kShm) {
      stage->exchange = make_shm_exchange(comm, sends, receives);
    } else if (kind == ExchangeKind::kAlltoallv) {
      stage->exchange = make_alltoallv_exchange(comm, sends, receives);
    } else {
      stage->exchange = make_p2p_exchange(comm, sends, receives);
    }
  });
}

MessageLabel Combine::label(int hop, int from, int to) const {
  return {.from = from, .to = to, .hop = hop, .element = settings_.element};
}

void Combine::post(std::span<const WorkItem> items, const std::vector<kernels::OpenItem>& open) {
  stats_ = {};
  ++sequence_;
  stage_ = 0;
  for (const kernels::OpenItem& o : open) {
    kernels::OpenItem whole = o;
    WorkItem item = items[o.item];
    if (runs_) {
      runs_->name_parts(item, whole);
      item = runs_->item(item);
    }
    for (const OwnedPart& part : owned_parts(batch(), partition(), item)) {
      held_->add(part.item, part.rows, whole.nodes);
    }
  }
  start_stage(settings_.threads);
}

void Combine::start_stage(int threads) {
  if (stage_ == stages_.size()) return;
  const Stopwatch watch;
  Stage& stage = stages_[stage_];
  std::vector<Packing> packings;
  packings.reserve(stage.sent.size());
  for (std::size_t i = 0; i < stage.sent.size(); ++i) {
    const std::span<std::byte> bytes = stage.exchange->outgoing(i);
    stage.sent[i].place_in(bytes, sequence_);
    Packing& packing = packings.emplace_back(stage.sent[i]);
    for (const WireItem& item : stage.sent[i].items()) {
      packing.add(held_->take(item.item), runs_.has_value());
      stats_.partials_sent += std::ssize(item.nodes);
    }
    stats_.bytes_sent += std::ssize(bytes);
  }
  pack(packings, runs_.has_value(), threads);
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
    receive_stage();
    fold_stage(1);
    start_stage(1);
  }
  return stage_ == stages_.size();
}

/// Takes over what has arrived in the stage under way, and goes on to the next.
void Combine::receive_stage() {
  const Stopwatch watch;
  Stage& stage = stages_[stage_++];
  for (std::size_t i = 0; i < stage.received.size(); ++i) {
    Message& message = stage.received[i];
    message.place_in(stage.exchange->incoming(i), sequence_);
    message.check_header();
    for (std::size_t item = 0; item < message.items().size(); ++item) held_->add(message, item);
  }
  stats_.exchange_seconds += watch.seconds();
}

void Combine::fold_stage(int threads) {
  const Stopwatch watch;
  held_->fold(threads);
  stats_.merge_seconds += watch.seconds();
}

void Combine::finish(ResultSink& results) {
  enter(Phase::kExchange);
  while (stage_ < stages_.size()) {
    const Stopwatch watch;
    {
      const Waiting waiting;
      stages_[stage_].exchange->wait();
    }
    stats_.wait_seconds += watch.seconds();
    receive_stage();
    if (stage_ == stages_.size()) break;
    fold_stage(settings_.threads);
    start_stage(settings_.threads);
  }
  enter(Phase::kMerge);
  const Stopwatch merge_watch;
  held_->finish(settings_.threads, results);
  stats_.merge_seconds += merge_watch.seconds();
  for (Stage& stage : stages_) stage.exchange->release();
}

}  // namespace mla::dist
