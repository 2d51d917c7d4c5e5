#include "launch/decode_job.h"

#include <cstdio>
#include <optional>
#include <span>
#include <vector>

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include "core/calibration.h"
#include "core/error.h"
#include "core/growing_plan.h"
#include "dist/activity.h"
#include "dist/calibrate.h"
#include "dist/mode_trials.h"
#include "dist/stopwatch.h"
#include "dist/watchdog.h"
#include "launch/decode_growing.h"
#include "launch/decode_report.h"
#include "launch/decode_step.h"
#include "launch/job_journals.h"
#include "launch/progress.h"
#include "launch/step_plan.h"
#include "launch/stop_request.h"
#include "launch/tables.h"
#include "proto/file_io.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace mla::launch {
namespace {

constexpr double kMinCalibratedSeconds = 1;  // of a job whose messages are worth measuring

/// Large blocks go back to the system when freed. The heap would take larger and larger ones, and
/// small ones above would keep them in it.
void give_back_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

/// Decodes run after run of requests until all are done, time is up or a signal has come. Fills in
/// what `report` says of them. Returns whether all are done. Collective.
bool decode_in_steps(const DecodeContext& context, StepPlan& plan, JobJournals& journals,
                     RankMeasurements& mine, DecodeReport& report) {
  Progress progress(context.talks);
  std::vector<Partition> steps;
  for (double last_seconds = 0; plan.requests_left() > 0;) {
    const StepVote vote = vote_on_step(context, last_seconds);
    if (vote.stop) break;
    const double share_before = plan.share_begun();
    const auto requests = plan.next(vote.last_seconds, vote.seconds_left);
    if (requests.empty()) break;
    progress.begin_step(share_before, plan.share_begun() - share_before);
    last_seconds =
        timed([&] { steps.push_back(decode_step(context, requests, journals, progress, mine)); });
    journals.check();
  }
  const bool is_done = plan.requests_left() == 0;
  if (context.comm.rank() != 0) return is_done;
  if (is_done) {
    report_steps(context.batch, steps, context.comm.size(), context.settings.cost, report);
  } else {
    const auto all = std::ssize(context.batch.requests);
    spdlog::warn("stopped with {} of {} requests done; go on with --resume",
                 all - plan.requests_left(), all);
  }
  return is_done;
}

/// The requests as they are in the middle of --steps.
Batch in_the_middle(const Batch& batch, std::span<const std::int64_t> requests, Growth growth) {
  Batch sizes = sizes_of(batch);
  for (const std::int64_t request : requests) {
    sizes.requests.push_back(sizes_of(batch.requests[request]));
    sizes.requests.back().context_len =
        growth.context_len(batch.requests[request], growth.steps / 2);
  }
  return sizes;
}

/// Says what was measured, and what the job will take: in one step, or in --steps like the last.
void print_expected(const DecodeContext& context, std::span<const std::int64_t> requests,
                    const Calibration& machine, const std::vector<dist::ModeTrial>& trials) {
  const CostModel& cost = context.settings.cost;
  const Partition all =
      make_partition(context.batch, requests, context.mode, context.comm.size(), cost);
  const auto loads = loads_of(context.batch, all, cost, CountPages::kNo);
  PredictedCost seconds = predicted_seconds(context.batch, loads, cost);
  for (double* part : {&seconds.load, &seconds.compute, &seconds.exchange}) {
    *part *= static_cast<double>(context.options.steps);
  }
  print_prediction(machine, trials, all.mode, seconds);
}

}  // namespace

ExitCode run_decode(const dist::Communicator& comm, const DecodeOptions& options) {
  give_back_freed_memory();
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
  comm.together([&] {
    backend = &kernels::find_backend(options.backend, batch);
    check_growth(batch, {options.steps}, "--steps");
  });
  const GpuPlacement gpus = place_on_gpus(comm, *backend);
  if (talks) {
    print_placement(placement, threads, backend->name());
    print_gpus(gpus);
  }

  JobJournals journals(comm, loaded, options, backend->name());
  const std::vector<std::int64_t>& requests = journals.requests_left();
  if (talks && options.resume) {
    print_resumed(stdout, std::ssize(batch.requests) - std::ssize(requests),
                  std::ssize(batch.requests));
  }
  dist::DecodeSettings settings{
      .compute = {.threads = threads, .gpu = gpus.gpu, .exact = options.combine == "exact"},
      .exchange = exchange};
  Calibration machine;
  const auto num_steps = static_cast<double>(options.steps);
  mine.seconds.calibrate = timed([&] {
    machine = dist::calibrate(comm, batch, *backend, settings, kMinCalibratedSeconds / num_steps);
  });
  settings.cost = calibrated_model(machine);
  settings.cost.flop_per_loaded_byte /= num_steps;  // the cache is loaded once for all
  std::vector<dist::ModeTrial> trials;
  if (mode.kind == ShardMode::Kind::kAuto && options.steps > 1) {
    mine.seconds.calibrate += timed([&] {
      trials = dist::try_modes(comm, in_the_middle(batch, requests, {options.steps}), *backend,
                               settings, options.steps);
    });
    if (!trials.empty()) mode = dist::fastest_mode(trials);
  }
  const DecodeContext context{comm,     options,      batch,     *backend, mode,
                              settings, stop_request, job_watch, talks};
  if (talks && !requests.empty()) print_expected(context, requests, machine, trials);
  DecodeReport report;
  bool done = false;
  if (options.steps > 1) {
    done = decode_growing(context, requests, journals, mine, report);
  } else {
    StepPlan plan(batch, requests, comm.size(), placement.threads, options.step_seconds);
    done = decode_in_steps(context, plan, journals, mine, report);
  }
  journals.sync();
  if (!done) return ExitCode::kStopped;

  dist::enter(dist::Phase::kWrite);
  mine.seconds.write += timed([&] { journals.write_output(); });
  mine.peak_rss_bytes = peak_rss_bytes();
  gather_measurements(comm, mine, report);
  comm.on_root([&] {
    report.failed_requests = static_cast<std::int64_t>(loaded.failed.size());
    write_manifest(options, batch, placement, gpus, *backend, report);
    if (talks) print_report(batch, report);
  });
  journals.remove();
  const auto failed = comm.all_gather(report.failed_requests).front();
  return failed == 0 ? ExitCode::kDone : ExitCode::kSomeRequestsFailed;
}

}  // namespace mla::launch
