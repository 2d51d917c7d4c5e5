#include "launch/decode_job.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <optional>

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include "core/calibration.h"
#include "core/error.h"
#include "dist/activity.h"
#include "dist/calibrate.h"
#include "dist/stopwatch.h"
#include "dist/watchdog.h"
#include "launch/decode_step.h"
#include "launch/job_journals.h"
#include "launch/progress.h"
#include "launch/step_plan.h"
#include "launch/stop_request.h"
#include "launch/tables.h"
#include "proto/file_io.h"

namespace mla::launch {
namespace {

constexpr double kMinCalibratedSeconds = 1;

std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

DecodeReport gather_report(const dist::Communicator& comm, const RankMeasurements& mine) {
  DecodeReport report;
  double compute_sum = 0;
  const auto keep_larger = [](double& a, double b) { a = std::max(a, b); };
  for (const RankMeasurements& rank : comm.all_gather(mine)) {
    keep_larger(report.slowest.load, rank.seconds.load);
    keep_larger(report.slowest.calibrate, rank.seconds.calibrate);
    keep_larger(report.slowest.plan, rank.seconds.plan);
    keep_larger(report.slowest.data, rank.seconds.data);
    keep_larger(report.slowest.compute, rank.seconds.compute);
    keep_larger(report.slowest.exchange, rank.seconds.exchange);
    keep_larger(report.slowest.merge, rank.seconds.merge);
    keep_larger(report.slowest.write, rank.seconds.write);
    compute_sum += rank.seconds.compute;
    report.peak_rss_bytes = std::max(report.peak_rss_bytes, rank.peak_rss_bytes);
    report.huge_page_bytes += std::max<std::int64_t>(0, rank.huge_page_bytes);
    report.partials_sent += rank.partials_sent;
    report.bytes_sent += rank.bytes_sent;
  }
  const double mean = compute_sum / comm.size();
  report.compute_max_over_mean = mean > 0 ? report.slowest.compute / mean : 1;
  return report;
}

/// What `loads` will take on the slowest rank; 0 if the machine was not measured.
PredictedCost predicted_seconds(const Batch& batch, const std::vector<RankLoad>& loads,
                                const CostModel& cost) {
  const double rate = cost.flop_per_second;
  if (rate == 0) return {};
  const PredictedCost flop = predicted_cost(batch, loads, cost);
  return {flop.load / rate, flop.compute / rate, flop.exchange / rate};
}

/// Adds up what the steps' partitions mean for each rank.
void add_loads(const Batch& batch, const std::vector<Partition>& steps, int ranks,
               const CostModel& cost, DecodeReport& report) {
  report.steps = static_cast<std::int64_t>(steps.size());
  report.loads.resize(static_cast<std::size_t>(ranks));
  for (const Partition& step : steps) {
    const std::string mode = to_string(step.mode);
    if (report.mode.find(mode) == std::string::npos) {
      report.mode += (report.mode.empty() ? "" : ", ") + mode;
    }
    const std::vector<RankLoad> loads = loads_of(batch, step, cost);
    const PredictedCost predicted = predicted_seconds(batch, loads, cost);
    report.predicted_seconds.load += predicted.load;
    report.predicted_seconds.compute += predicted.compute;
    report.predicted_seconds.exchange += predicted.exchange;
    for (std::size_t rank = 0; rank < loads.size(); ++rank) report.loads[rank] += loads[rank];
    for (const Ownership& o : step.ownerships) {
      const Request& request = batch.requests[o.request];
      report.flop += 2.0 * static_cast<double>(request.context_len) *
                     static_cast<double>(request.query_len * o.heads.size() *
                                         (batch.shape.d_qk + batch.shape.d_v));
    }
  }
}

/// What decides on the next step; the same on all ranks once they have agreed.
struct StepVote {
  bool stop = false;
  double last_seconds = 0;  ///< of the last step
  double seconds_left = 0;
};

/// Stops if any rank wants to; takes the longest and the least time. Collective.
StepVote agree(const dist::Communicator& comm, const StepVote& mine) {
  StepVote all = mine;
  for (const StepVote& vote : comm.all_gather(mine)) {
    all.stop = all.stop || vote.stop;
    all.last_seconds = std::max(all.last_seconds, vote.last_seconds);
    all.seconds_left = std::min(all.seconds_left, vote.seconds_left);
  }
  return all;
}

/// Decodes step by step until all is done, time is up or a signal has come. Collective.
std::vector<Partition> decode_steps(const DecodeContext& context, const StopRequest& stop_request,
                                    const dist::Stopwatch& job_watch, StepPlan& plan,
                                    JobJournals& journals, bool talks, RankMeasurements& mine) {
  const double seconds_allowed = context.options.max_hours > 0
                                     ? context.options.max_hours * kSecondsPerHour
                                     : std::numeric_limits<double>::infinity();
  Progress progress(talks);
  std::vector<Partition> steps;
  for (double last_seconds = 0; plan.requests_left() > 0;) {
    const StepVote vote = agree(context.comm, {stop_request.has_come(), last_seconds,
                                               seconds_allowed - job_watch.seconds()});
    if (vote.stop) break;
    const double share_before = plan.share_begun();
    const auto requests = plan.next(vote.last_seconds, vote.seconds_left);
    if (requests.empty()) break;
    progress.begin_step(share_before, plan.share_begun() - share_before);
    last_seconds =
        timed([&] { steps.push_back(decode_step(context, requests, journals, progress, mine)); });
    journals.check();
  }
  return steps;
}

}  // namespace

ExitCode run_decode(const dist::Communicator& comm, const DecodeOptions& options) {
  const StopRequest stop_request;
  const dist::Stopwatch job_watch;
  const int threads = choose_threads(comm, options.threads);
  const bool talks = comm.rank() == 0 && !options.quiet;
  RankMeasurements mine;
  std::optional<dist::Watchdog> watchdog;
  if (comm.size() > 1) watchdog.emplace(comm, options.timeout_seconds);

  ShardMode mode;
  dist::ExchangeKind exchange{};
  const kernels::Backend* backend = nullptr;
  comm.together([&] {
    mode = parse_shard_mode(options.mode, comm.size());
    exchange = dist::parse_exchange(options.exchange);
    backend = &kernels::find_backend(options.backend);
  });
  comm.on_root([&] { const proto::AtomicFile trial(options.output); });  // fail before any work
  const Placement placement = survey_placement(comm, threads);
  bind_threads(comm, threads);
  dist::enter(dist::Phase::kLoad);
  LoadedBatch loaded;
  mine.seconds.load = timed([&] { loaded = load_batch(comm, options.batch, options.keep_going); });
  const Batch& batch = loaded.batch;
  comm.together([&] { backend = &kernels::find_backend(options.backend, batch); });
  const GpuPlacement gpus = place_on_gpus(comm, *backend);
  if (talks) {
    print_placement(placement, threads, backend->name());
    print_gpus(gpus);
  }

  JobJournals journals(comm, loaded, options, backend->name());
  StepPlan plan(batch, journals.requests_left(), comm.size(), placement.threads,
                options.step_seconds);
  const auto num_requests = static_cast<std::int64_t>(batch.requests.size());
  if (talks && options.resume) {
    print_resumed(stdout, num_requests - plan.requests_left(), num_requests);
  }
  dist::DecodeSettings settings{
      .compute = {.threads = threads, .gpu = gpus.gpu, .exact = options.combine == "exact"},
      .exchange = exchange};
  Calibration machine;
  mine.seconds.calibrate = timed(
      [&] { machine = dist::calibrate(comm, batch, *backend, settings, kMinCalibratedSeconds); });
  settings.cost = calibrated_model(machine);
  const CostModel& cost = settings.cost;
  if (talks && plan.requests_left() > 0) {
    const Partition all = make_partition(batch, journals.requests_left(), mode, comm.size(), cost);
    const auto loads = loads_of(batch, all, cost, CountPages::kNo);
    print_prediction(machine, all.mode, predicted_seconds(batch, loads, cost));
  }
  const std::vector<Partition> steps =
      decode_steps({comm, options, batch, *backend, mode, settings}, stop_request, job_watch, plan,
                   journals, talks, mine);
  journals.sync();
  if (plan.requests_left() > 0) {
    if (comm.rank() == 0) {
      spdlog::warn("stopped with {} of {} requests done; go on with --resume",
                   num_requests - plan.requests_left(), num_requests);
    }
    return ExitCode::kStopped;
  }

  dist::enter(dist::Phase::kWrite);
  mine.seconds.write += timed([&] { journals.write_output(); });
  mine.peak_rss_bytes = peak_rss_bytes();
  DecodeReport report = gather_report(comm, mine);
  comm.on_root([&] {
    report.failed_requests = static_cast<std::int64_t>(loaded.failed.size());
    add_loads(batch, steps, comm.size(), cost, report);
    write_manifest(options, batch, placement, gpus, *backend, report);
    if (talks) print_report(batch, report);
  });
  journals.remove();
  const auto failed = comm.all_gather(report.failed_requests).front();
  return failed == 0 ? ExitCode::kDone : ExitCode::kSomeRequestsFailed;
}

}  // namespace mla::launch
