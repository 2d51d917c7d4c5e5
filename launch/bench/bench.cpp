#include "launch/bench/bench.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <omp.h>
#include <spdlog/spdlog.h>

#include "core/build_info.h"
#include "kernels/backend.h"
#include "launch/bench/decode_contender.h"
#include "launch/bench/device_bench.h"
#include "launch/bench/peers.h"
#include "launch/bench/pool.h"
#include "launch/bench/projected_contenders.h"
#include "launch/machine.h"

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kReplays = 20;  // of a GPU's graph, at least

std::string mebibytes(std::int64_t bytes) {
  return fmt::format("{} MiB", bytes >> 20);
}

using Backends = std::vector<const kernels::Backend*>;
using HostBackends = std::vector<const kernels::HostBackend*>;

Backends choose_backends(const BenchOptions& options) {
  Backends chosen;
  if (options.backends == "all") {
    for (const kernels::Backend* backend : kernels::backends()) {
      const bool usable = backend->why_unavailable().empty();
      if (usable && backend->name() != "reference") chosen.push_back(backend);
    }
    return chosen;
  }
  for (const std::string& name : parse_names("--backend", options.backends)) {
    if (options.grid.projected) {
      chosen.push_back(&kernels::find_host_backend(name));
    } else {
      chosen.push_back(&kernels::find_backend(name));
    }
  }
  return chosen;
}

HostBackends hosts_of(const Backends& backends) {
  HostBackends hosts;
  for (const kernels::Backend* backend : backends) {
    const auto* host = dynamic_cast<const kernels::HostBackend*>(backend);
    if (host != nullptr) hosts.push_back(host);
  }
  return hosts;
}

Backends devices_of(const Backends& backends) {
  Backends devices;
  for (const kernels::Backend* backend : backends) {
    if (dynamic_cast<const kernels::HostBackend*>(backend) == nullptr) devices.push_back(backend);
  }
  return devices;
}

std::int64_t max_cache_bytes(const BenchOptions& options) {
  const std::int64_t limit = std::min(std::int64_t{8} << 30, memory_bytes() / 2);
  if (options.max_cache.empty()) return limit;
  // In MiB, so that 8k is 8 GiB and a byte more is no question.
  return parse_size("--max-cache", options.max_cache, std::int64_t{1} << 30) << 20;
}

/// Takes out the points that need more memory than allowed and says so in `notes`.
void drop_large_points(std::vector<Point>& points, std::int64_t max_bytes,
                       std::vector<std::string>& notes) {
  std::erase_if(points, [&](const Point& point) {
    const bool drop = point.memory_bytes() > static_cast<double>(max_bytes);
    if (drop) {
      notes.push_back(
          fmt::format("left out for --max-cache {}: {}", max_bytes >> 20, to_string(point)));
      spdlog::info("{}", notes.back());
    }
    return drop;
  });
}

std::int64_t pool_bytes(const std::vector<Point>& points, bool hot) {
  std::int64_t bytes = hot ? 0 : cold_pool_bytes();
  for (const Point& point : points) bytes = std::max(bytes, point.cache_bytes());
  return bytes;
}

Header make_header(const BenchOptions& options, std::int64_t pool) {
  Header header = {
      {"meshmla", build_summary()},
      {"date", date_today()},
      {"host", host_name()},
      {"cpu", fmt::format("{}, {} core(s) to run on", cpu_model(), omp_get_num_procs())},
      {"cache", options.hot
                    ? "hot: every repeat reads the same pages"
                    : fmt::format("cold: every repeat reads other pages of {}", mebibytes(pool))}};
  if (options.peers && !peer_versions().empty()) {
    header.emplace_back("peers",
                        fmt::format("{}; contiguous cache", fmt::join(peer_versions(), ", ")));
  }
  return header;
}

/// The contenders of a point, and what is to be said of each.
struct Lineup {
  std::vector<std::unique_ptr<Contender>> contenders;
  Backends backends;                ///< null for a library
  std::vector<std::size_t> rivals;  ///< whom each is compared with, itself for nobody

  void add(std::unique_ptr<Contender> contender, const kernels::Backend* backend,
           std::size_t rival) {
    contenders.push_back(std::move(contender));
    backends.push_back(backend);
    rivals.push_back(rival);
  }
};

/// One run over all points.
class Bench {
 public:
  Bench(const BenchOptions& options, Report& report)
      : options_(options),
        report_(report),
        backends_(choose_backends(options)),
        hosts_(hosts_of(backends_)),
        devices_(devices_of(backends_)),
        points_(make_points(options.grid)),
        max_cache_(max_cache_bytes(options)) {}

  ExitCode run() {
    drop_large_points(points_, max_cache_, notes_);
    if (points_.empty()) return finish();
    const std::int64_t bytes = pool_bytes(points_, options_.hot);
    spdlog::info("generating a cache of {}", mebibytes(bytes));
    Pool pool(bytes);
    pool.fill(points_[0].dtype);
    if (!devices_.empty()) device_ = make_device_bench(pool, options_.hot);
    if (options_.limits) {
      spdlog::info("measuring the machine's limits");
      limits_ = measure_limits(points_, hosts_, pool);
      if (device_) measure_device_limits(pool);
    }
    Header header = make_header(options_, bytes);
    if (device_) header.insert(header.begin() + 4, {"gpu", device_->gpu_name()});
    report_.begin(header, limits_);
    std::optional<Peers> peers;
    for (std::size_t i = 0; i < points_.size(); ++i) {
      if (points_[i].dtype != pool.dtype()) {
        pool.fill(points_[i].dtype);
        if (device_) device_->upload_pool();
        peers.reset();
      }
      if (options_.peers && !peers) peers.emplace(pool, max_cache_, options_.hot);
      spdlog::info("{} of {}: {}", i + 1, points_.size(), to_string(points_[i]));
      measure_point(points_[i], pool, peers ? &*peers : nullptr);
    }
    return finish();
  }

 private:
  void measure_point(const Point& point, const Pool& pool, Peers* peers) {
    if (point.projected()) {
      measure_projected(point, pool);
      return;
    }
    const Workload workload(point);
    for (const kernels::Backend* backend : devices_) {
      if (options_.combine != "fast") measure_on_device(workload, *backend, true);
      if (options_.combine != "exact") measure_on_device(workload, *backend, false);
    }
    Lineup lineup;
    for (const kernels::HostBackend* backend : hosts_) {
      lineup.add(std::make_unique<DecodeContender>(workload, pool, *backend, options_.hot), backend,
                 lineup.contenders.size());
    }
    if (peers != nullptr && point.varied()) {
      notes_.push_back("peers: left out where lengths differ: " + to_string(point));
    } else if (peers != nullptr) {
      for (auto& peer : peers->contenders(workload, notes_))
        lineup.add(std::move(peer), nullptr, 0);
    }
    if (!lineup.contenders.empty()) measure_lineup(point, lineup);
  }

  /// One at a time: a GPU that waits for others in turn does not run at its own speed.
  void measure_on_device(const Workload& workload, const kernels::Backend& backend, bool exact) {
    Lineup lineup;
    try {
      lineup.add(device_->make_contender(workload, backend, exact), &backend, 0);
    } catch (const Unsupported& e) {
      notes_.push_back(fmt::format("{} {}: left out: {}: {}", backend.name(),
                                   exact ? "exact" : "fast", to_string(workload.point), e.what()));
      return;
    }
    measure_lineup(workload.point, lineup);
  }

  void measure_device_limits(const Pool& pool) {
    for (const kernels::Backend* backend : devices_) {
      limits_.devices.push_back(device_->measure_limit(*backend, pool.dtype()));
    }
  }

  /// Each backend by itself: the weights are packed for one.
  void measure_projected(const Point& point, const Pool& pool) {
    for (const kernels::HostBackend* backend : hosts_) {
      ProjectedLayer layer(point, pool, *backend, options_.hot);
      Lineup lineup;
      lineup.add(std::make_unique<FusedContender>(layer), backend, 0);
      lineup.add(std::make_unique<StepsContender>(layer), backend, 0);
      measure_lineup(point, lineup);
    }
  }

  void measure_lineup(const Point& point, const Lineup& lineup) {
    RepeatPolicy policy = options_.repeats;
    if (is_device(lineup.backends[0])) policy.repeats = std::max(policy.repeats, kReplays);
    const std::vector<Timing> timings = measure(lineup.contenders, policy);
    for (std::size_t i = 0; i < timings.size(); ++i) {
      Row row{.point = point,
              .name = lineup.contenders[i]->name(),
              .on_gpu = is_device(lineup.backends[i]),
              .timing = timings[i],
              .roofline = {},
              .speedup = {},
              .check = lineup.contenders[i]->check()};
      const std::size_t rival = lineup.rivals[i];
      if (rival != i) row.speedup = speed_ratio(timings[rival], timings[i]);
      if (lineup.backends[i] != nullptr) {
        row.roofline = limits_.roofline(point, *lineup.backends[i]);
      }
      if (!row.check.pass) code_ = ExitCode::kVerificationFailed;
      report_.add(row);
    }
  }

  bool is_device(const kernels::Backend* backend) const {
    return std::find(devices_.begin(), devices_.end(), backend) != devices_.end();
  }

  ExitCode finish() {
    std::sort(notes_.begin(), notes_.end());
    notes_.erase(std::unique(notes_.begin(), notes_.end()), notes_.end());
    report_.end(notes_);
    return code_;
  }

  const BenchOptions& options_;
  Report& report_;
  Backends backends_;
  HostBackends hosts_;
  Backends devices_;  // the GPUs' ones
  std::vector<Point> points_;
  std::int64_t max_cache_;
  Limits limits_;
  std::unique_ptr<DeviceBench> device_;
  std::vector<std::string> notes_;
  ExitCode code_ = ExitCode::kDone;
};

}  // namespace

ExitCode run_bench(const BenchOptions& options, Report& report) {
  if (options.combine == "fast" && devices_of(choose_backends(options)).empty()) {
    throw Unsupported("--combine", "fast with backend " + options.backends,
                      "exact, or a backend that computes on a GPU");
  }
  if (options.peers && !missing_peers().empty()) spdlog::warn("{}", missing_peers());
  return Bench(options, report).run();
}

}  // namespace mla::launch::bench
