#include "core/growing_plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "core/error.h"

namespace mla {
namespace {

double slowest_rank(const Batch& sizes, const Partition& partition, const CostModel& cost) {
  return predicted_cost(sizes, loads_of(sizes, partition, cost, CountPages::kNo), cost).total();
}

/// Whether the slowest rank takes little longer than the mean.
bool is_balanced(const Batch& sizes, const Partition& partition, const CostModel& cost) {
  double slowest = 0;
  double sum = 0;
  for (const RankLoad& load : loads_of(sizes, partition, cost, CountPages::kNo)) {
    const double total = predicted_cost(sizes, {load}, cost).total();
    slowest = std::max(slowest, total);
    sum += total;
  }
  return slowest * partition.ranks() <= sum * kMaxDrift;
}

/// The sizes of the batch and of all its requests.
Batch all_sizes_of(const Batch& batch) {
  Batch sizes = sizes_of(batch);
  for (const Request& request : batch.requests) sizes.requests.push_back(sizes_of(request));
  return sizes;
}

}  // namespace

void check_growth(const Batch& batch, Growth growth, std::string_view option) {
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const Request* shortest = nullptr;
  for (const Request& request : batch.requests) {
    if (request.context_len == 0) continue;
    const std::int64_t steps = ceil_div(request.context_len, request.query_len);
    if (steps >= most) continue;
    most = steps;
    shortest = &request;
  }
  if (growth.steps <= most) return;
  throw InvalidArgument(option, std::to_string(growth.steps),
                        "at most " + std::to_string(most) + ", as request '" + shortest->custom_id +
                            "' has " + std::to_string(shortest->context_len) +
                            " tokens, of which each step adds " +
                            std::to_string(shortest->query_len));
}

void set_lengths(const Batch& batch, Growth growth, std::int64_t step, Batch& sizes) {
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    sizes.requests[r].context_len = growth.context_len(batch.requests[r], step);
  }
}

bool extend(const Batch& sizes, Partition& partition) {
  std::vector<std::int64_t> chunks_before(sizes.requests.size(), 0);
  for (const Piece& piece : partition.pieces) {
    chunks_before[piece.request] = std::max(chunks_before[piece.request], piece.chunks.end);
  }
  bool has_grown = false;
  for (Piece& piece : partition.pieces) {
    const std::int64_t chunks = sizes.num_chunks(sizes.requests[piece.request]);
    if (piece.chunks.end != chunks_before[piece.request] || piece.chunks.end == chunks) continue;
    piece.chunks.end = chunks;
    has_grown = true;
  }
  return has_grown;
}

GrowingPlan make_growing_plan(const Batch& batch, std::span<const std::int64_t> requests,
                              Growth growth, ShardMode mode, int ranks, const CostModel& cost) {
  GrowingPlan plan{.growth = growth, .made = {}};
  Batch sizes = all_sizes_of(batch);
  Partition kept;
  for (std::int64_t step = 0; step < growth.steps; ++step) {
    set_lengths(batch, growth, step, sizes);
    if (step > 0) {
      extend(sizes, kept);
      if (is_balanced(sizes, kept, cost)) continue;
    }
    Partition fresh = make_partition(sizes, requests, mode, ranks, cost);
    if (step > 0 &&
        slowest_rank(sizes, kept, cost) <= kMaxDrift * slowest_rank(sizes, fresh, cost)) {
      continue;
    }
    kept = fresh;
    plan.made.push_back({step, std::move(fresh)});
  }
  return plan;
}

GrowingSteps::GrowingSteps(const Batch& batch, const GrowingPlan& plan)
    : batch_(batch),
      plan_(plan),
      sizes_(all_sizes_of(batch)),
      partition_(plan.made.back().partition) {
  extend(sizes_, partition_);
}

GrowingSteps::Change GrowingSteps::advance() {
  ++step_;
  set_lengths(batch_, plan_.growth, step_, sizes_);
  if (next_made_ < plan_.made.size() && plan_.made[next_made_].first_step == step_) {
    partition_ = plan_.made[next_made_++].partition;
    return Change::kNew;
  }
  return extend(sizes_, partition_) ? Change::kExtended : Change::kNone;
}

std::vector<Piece> held_pieces(const Batch& batch, const GrowingPlan& plan, int rank) {
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, Range> chunks_of;
  Batch sizes = all_sizes_of(batch);
  for (std::size_t i = 0; i < plan.made.size(); ++i) {
    const bool is_last = i + 1 == plan.made.size();
    const std::int64_t end = is_last ? plan.growth.steps : plan.made[i + 1].first_step;
    Partition partition = plan.made[i].partition;
    set_lengths(batch, plan.growth, end - 1, sizes);
    extend(sizes, partition);
    for (const Piece& piece : partition.pieces_of(rank)) {
      Range& chunks = chunks_of[{piece.request, piece.heads.begin, piece.heads.end}];
      chunks = chunks.empty() ? piece.chunks
                              : Range{std::min(chunks.begin, piece.chunks.begin),
                                      std::max(chunks.end, piece.chunks.end)};
    }
  }
  std::vector<Piece> held;
  for (const auto& [key, chunks] : chunks_of) {
    const auto& [request, head_begin, head_end] = key;
    held.push_back({request, {head_begin, head_end}, chunks});
  }
  return held;
}

std::vector<std::size_t> places_in(std::span<const Piece> held, std::span<const Piece> pieces) {
  std::vector<std::size_t> places;
  std::size_t likely = 0;  // both are in the same order
  for (const Piece& piece : pieces) {
    const auto has_it = [&](const Piece& h) {
      return h.request == piece.request && h.heads == piece.heads &&
             h.chunks.begin <= piece.chunks.begin && piece.chunks.end <= h.chunks.end;
    };
    auto found =
        std::find_if(held.begin() + static_cast<std::ptrdiff_t>(likely), held.end(), has_it);
    if (found == held.end()) found = std::find_if(held.begin(), held.end(), has_it);
    places.push_back(static_cast<std::size_t>(found - held.begin()));
    likely = std::min(places.back() + 1, held.size());
  }
  return places;
}

}  // namespace mla
