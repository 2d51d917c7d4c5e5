#include "launch/step_plan.h"

#include <algorithm>
#include <utility>

#include "core/cost_model.h"

namespace mla::launch {
namespace {

constexpr double kSlowThread = 5e9;  // FLOP-equivalents a second, to size the first step
constexpr double kMaxGrowth = 8;     // from step to step, as the rate of a short one says little

/// Loading and computing one request; none is free.
double cost_of(const Batch& batch, const Request& request) {
  const CostModel cost;
  const std::int64_t chunks = batch.num_chunks(request);
  if (chunks == 0) return cost.flop_per_message;
  const std::int64_t heads = batch.shape.h_q;
  const double whole_chunks =
      static_cast<double>(chunks - 1) * cost.chunk(batch, request, 0, heads);
  const double cache_bytes =
      static_cast<double>(request.context_len) *
      static_cast<double>(batch.shape.h_kv * batch.shape.d_qk * size_of(batch.dtype));
  return cost.flop_per_message + whole_chunks + cost.chunk(batch, request, chunks - 1, heads) +
         cache_bytes * cost.flop_per_loaded_byte;
}

}  // namespace

StepPlan::StepPlan(const Batch& batch, std::vector<std::int64_t> requests, int ranks, int threads,
                   double seconds_per_step)
    : requests_(std::move(requests)),
      ranks_(ranks),
      seconds_per_step_(seconds_per_step),
      last_cost_(kSlowThread * threads * seconds_per_step / kMaxGrowth) {
  for (const std::int64_t request : requests_) {
    costs_.push_back(cost_of(batch, batch.requests[request]));
    total_ += costs_.back();
  }
}

std::span<const std::int64_t> StepPlan::next(double last_seconds, double seconds_left) {
  double wanted = kMaxGrowth * last_cost_;
  double possible = total_;
  if (last_seconds > 0) {
    const double rate = last_cost_ / last_seconds;
    wanted = std::min(wanted, rate * seconds_per_step_);
    possible = rate * seconds_left / kSpareTime;
  } else if (seconds_left <= 0) {
    return {};
  }
  const std::int64_t begin = end_;
  const double cost_before = begun_;
  double cost = 0;
  for (; end_ < static_cast<std::int64_t>(requests_.size()); ++end_) {
    // Fewer requests than ranks would leave some idle; a small remainder is no step of its own.
    const double left = total_ - cost_before - cost;
    if (end_ - begin >= ranks_ && cost >= wanted && left > wanted / 2) break;
    if (end_ - begin >= ranks_ && cost + costs_[end_] > possible) break;
    cost += costs_[end_];
  }
  if (cost > possible) {
    end_ = begin;
    return {};
  }
  begun_ += cost;
  last_cost_ = cost;
  return std::span(requests_).subspan(begin, end_ - begin);
}

}  // namespace mla::launch
