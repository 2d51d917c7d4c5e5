#include "launch/decode_job.h"

#include <algorithm>
#include <functional>
#include <optional>

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include "core/error.h"
#include "core/huge_pages.h"
#include "core/split_plan.h"
#include "dist/activity.h"
#include "dist/stopwatch.h"
#include "dist/watchdog.h"
#include "launch/progress.h"
#include "launch/rank_inputs.h"
#include "launch/tables.h"
#include "proto/batch_file.h"
#include "proto/file_io.h"
#include "proto/shard_data.h"

namespace mla::launch {
namespace {

/// Keeps the job going without this request.
void empty_request(Request& request) {
  request.query_len = 1;
  request.context_len = 0;
  request.block_table.clear();
  request.q = {};
}

/// What is wrong with request `index` and its queries; empty if nothing is.
std::string error_of_request(const Batch& batch, std::int64_t index,
                             const std::filesystem::path& base_dir) {
  try {
    validate_request(batch, index, ValidateFor::kDecoding);
    proto::check_query_source(batch, index, base_dir);
    return {};
  } catch (const FormatError& error) {
    return error.what();
  }
}

void read_on_root(const std::filesystem::path& path, bool keep_going, LoadedBatch& loaded) {
  const std::filesystem::path base_dir = path.parent_path();
  loaded.batch = proto::read_batch(path);
  if (!keep_going) {
    validate(loaded.batch, ValidateFor::kDecoding);
    proto::check_sources(loaded.batch, base_dir);
    return;
  }
  validate_header(loaded.batch, ValidateFor::kDecoding);
  proto::check_cache_source(loaded.batch, base_dir);
  for (std::size_t i = 0; i < loaded.batch.requests.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    std::string error = error_of_request(loaded.batch, index, base_dir);
    if (error.empty()) continue;
    empty_request(loaded.batch.requests[i]);
    spdlog::warn("request '{}' cannot run: {}", loaded.batch.requests[i].custom_id, error);
    loaded.failed[index] = std::move(error);
  }
}

std::int64_t chunks_in(const Batch& batch, std::span<const Piece> pieces) {
  std::int64_t chunks = 0;
  for (const WorkItem& item : work_items(batch, pieces)) chunks += item.chunks.size();
  return chunks;
}

std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

/// What one rank measured.
struct RankReport {
  PhaseSeconds seconds;
  std::int64_t peak_rss_bytes = 0;
  std::int64_t huge_page_bytes = 0;
  std::int64_t partials_sent = 0;
  std::int64_t bytes_sent = 0;
};

DecodeReport gather_report(const dist::Communicator& comm, const RankReport& mine) {
  DecodeReport report;
  double compute_sum = 0;
  const auto keep_larger = [](double& a, double b) { a = std::max(a, b); };
  for (const RankReport& rank : comm.all_gather(mine)) {
    keep_larger(report.slowest.load, rank.seconds.load);
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

/// @throws InvalidArgument for a combination that the backend does not know
void check_combine(const DecodeOptions& options, const kernels::Backend& backend) {
  if (options.combine == "exact" || !backend.gpus().empty()) return;
  throw InvalidArgument("--combine",
                        options.combine + " with backend " + std::string(backend.name()),
                        "exact, or a backend that computes on a GPU");
}

/// Runs `work` and returns the seconds it took.
double timed(const std::function<void()>& work) {
  const dist::Stopwatch watch;
  work();
  return watch.seconds();
}

}  // namespace

LoadedBatch load_batch(const dist::Communicator& comm, const std::filesystem::path& path,
                       bool keep_going) {
  LoadedBatch loaded;
  std::vector<std::byte> bytes;
  comm.on_root([&] {
    read_on_root(path, keep_going, loaded);
    bytes = proto::encode_batch(loaded.batch);
  });
  comm.broadcast(bytes);
  if (comm.rank() != 0) loaded.batch = proto::decode_batch(bytes, path.string());
  return loaded;
}

ExitCode run_decode(const dist::Communicator& comm, const DecodeOptions& options) {
  const int threads = choose_threads(comm, options.threads);
  const bool talks = comm.rank() == 0 && !options.quiet;
  RankReport mine;
  std::optional<dist::Watchdog> watchdog;
  if (comm.size() > 1) watchdog.emplace(comm, options.timeout_seconds);

  ShardMode mode;
  const kernels::Backend* backend = nullptr;
  comm.together([&] {
    mode = parse_shard_mode(options.mode, comm.size());
    backend = &kernels::find_backend(options.backend);
    check_combine(options, *backend);
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
    check_combine(options, *backend);
  });
  const GpuPlacement gpus = place_on_gpus(comm, *backend);
  if (talks) {
    print_placement(placement, threads, backend->name());
    print_gpus(gpus);
  }

  dist::enter(dist::Phase::kPlan);
  Partition partition;
  mine.seconds.plan = timed([&] { partition = make_partition(batch, mode, comm.size()); });
  const auto pieces = partition.pieces_of(comm.rank());

  dist::enter(dist::Phase::kData);
  std::optional<proto::ShardData> data;
  mine.seconds.data = timed([&] {
    comm.together([&] { data.emplace(batch, options.batch.parent_path(), pieces, threads); });
  });

  dist::DecodeStats stats;
  std::vector<ResultSlice> slices;
  comm.barrier();
  {
    Progress progress(chunks_in(batch, pieces), talks);
    slices =
        dist::decode(comm, batch, partition, rank_inputs(*data, pieces), *backend,
                     {.threads = threads, .gpu = gpus.gpu, .exact = options.combine == "exact"},
                     stats, progress.chunks_done());
  }
  mine.seconds.data += stats.prepare_seconds;
  mine.seconds.compute = stats.compute_seconds;
  mine.seconds.exchange = stats.combine.exchange_seconds;
  mine.seconds.merge = stats.combine.merge_seconds;

  dist::enter(dist::Phase::kWrite);
  mine.huge_page_bytes = huge_page_bytes();
  mine.seconds.write = timed([&] { write_results(comm, loaded, options, slices); });

  mine.peak_rss_bytes = peak_rss_bytes();
  mine.partials_sent = stats.combine.partials_sent;
  mine.bytes_sent = stats.combine.bytes_sent;
  DecodeReport report = gather_report(comm, mine);
  comm.on_root([&] {
    report.failed_requests = static_cast<std::int64_t>(loaded.failed.size());
    report.loads = loads_of(batch, partition);
    write_manifest(options, batch, partition, placement, gpus, *backend, report);
    if (talks) print_report(batch, partition, report);
  });
  const auto failed = comm.all_gather(report.failed_requests).front();
  return failed == 0 ? ExitCode::kDone : ExitCode::kSomeRequestsFailed;
}

}  // namespace mla::launch
