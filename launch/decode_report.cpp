#include "launch/decode_report.h"

#include <algorithm>
#include <span>
#include <string>

#include "core/median.h"

namespace mla::launch {
namespace {

/// Keeps the longer time of each phase.
template <class Seconds, std::size_t kCount>
void keep_longer(const PhaseName<Seconds> (&phases)[kCount], const Seconds& other,
                 Seconds& longest) {
  for (const auto& [name, phase] : phases) {
    longest.*phase = std::max(longest.*phase, other.*phase);
  }
}

/// The median of one member of `steps`.
template <class Step>
double median_of(const std::vector<Step>& steps, double Step::*member) {
  std::vector<double> values;
  for (const Step& step : steps) values.push_back(step.*member);
  return median(std::move(values));
}

void add_mode(const Partition& partition, DecodeReport& report) {
  const std::string mode = to_string(partition.mode);
  if (report.mode.find(mode) != std::string::npos) return;
  report.mode += (report.mode.empty() ? "" : ", ") + mode;
}

void add_predicted(const PredictedCost& predicted, DecodeReport& report) {
  report.predicted_seconds.load += predicted.load;
  report.predicted_seconds.compute += predicted.compute;
  report.predicted_seconds.exchange += predicted.exchange;
}

double flop_of(const Batch& batch, const Partition& partition) {
  double flop = 0;
  for (const Ownership& o : partition.ownerships) {
    const Request& request = batch.requests[o.request];
    flop += 2.0 * static_cast<double>(request.context_len) *
            static_cast<double>(request.query_len * o.heads.size() *
                                (batch.shape.d_qk + batch.shape.d_v));
  }
  return flop;
}

}  // namespace

PredictedCost predicted_seconds(const Batch& batch, const std::vector<RankLoad>& loads,
                                const CostModel& cost) {
  const double rate = cost.flop_per_second;
  if (rate == 0) return {};
  const PredictedCost flop = predicted_cost(batch, loads, cost);
  return {flop.load / rate, flop.compute / rate, flop.exchange / rate};
}

void gather_measurements(const dist::Communicator& comm, const RankMeasurements& mine,
                         DecodeReport& report) {
  double compute_sum = 0;
  for (const RankMeasurements& rank : comm.all_gather(mine)) {
    keep_longer(kPhases, rank.seconds, report.slowest);
    compute_sum += rank.seconds.compute;
    report.peak_rss_bytes = std::max(report.peak_rss_bytes, rank.peak_rss_bytes);
    report.huge_page_bytes += std::max<std::int64_t>(0, rank.huge_page_bytes);
    report.partials_sent += rank.partials_sent;
    report.bytes_sent += rank.bytes_sent;
  }
  const double mean = compute_sum / comm.size();
  report.compute_max_over_mean = mean > 0 ? report.slowest.compute / mean : 1;
}

void report_steps(const Batch& batch, const std::vector<Partition>& steps, int ranks,
                  const CostModel& cost, DecodeReport& report) {
  report.steps = static_cast<std::int64_t>(steps.size());
  report.loads.resize(static_cast<std::size_t>(ranks));
  for (const Partition& step : steps) {
    const std::vector<RankLoad> loads = loads_of(batch, step, cost);
    for (std::size_t rank = 0; rank < loads.size(); ++rank) report.loads[rank] += loads[rank];
    add_mode(step, report);
    add_predicted(predicted_seconds(batch, loads, cost), report);
    report.flop += flop_of(batch, step);
  }
}

std::vector<StepSeconds> slowest_of_ranks(const dist::Communicator& comm,
                                          const std::vector<StepSeconds>& mine) {
  std::vector<StepSeconds> all(mine.size() * static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::span(mine), std::span(all));
  std::vector<StepSeconds> slowest(mine.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    keep_longer(kStepPhases, all[i], slowest[i % mine.size()]);
  }
  return slowest;
}

void report_growth(const DecodeContext& context, const GrowingPlan& plan,
                   const std::vector<StepSeconds>& slowest, DecodeReport& report) {
  const CostModel& cost = context.settings.cost;
  report.steps = plan.growth.steps;
  for (const GrowingPlan::Made& made : plan.made) {
    report.growth.planned_steps.push_back(made.first_step);
    add_mode(made.partition, report);
  }
  GrowingSteps steps(context.batch, plan);
  std::vector<PredictedCost> predicted;
  for (std::int64_t step = 0; step < plan.growth.steps; ++step) {
    steps.advance();
    report.loads = loads_of(steps.sizes(), steps.partition(), cost, CountPages::kNo);
    predicted.push_back(predicted_seconds(steps.sizes(), report.loads, cost));
    add_predicted(predicted.back(), report);
    report.flop += flop_of(steps.sizes(), steps.partition());
  }
  report.growth.seconds = slowest;
  for (const auto& [name, phase] : kStepPhases) {
    report.growth.median.*phase = median_of(slowest, phase);
  }
  report.growth.predicted.compute = median_of(predicted, &PredictedCost::compute);
  report.growth.predicted.exchange = median_of(predicted, &PredictedCost::exchange);
}

}  // namespace mla::launch
