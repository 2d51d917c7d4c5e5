#include "launch/bench/limits.h"

#include <array>
#include <atomic>
#include <numeric>
#include <set>

#include "dist/stopwatch.h"

namespace mla::launch::bench {
namespace {

constexpr int kAttempts = 10;
constexpr double kAttemptSeconds = 0.03;

/// Reads all of `data`. Eight sums at a time, so that additions do not wait for one another.
std::uint64_t sum_of(std::span<const std::uint64_t> data) {
  std::array<std::uint64_t, 8> sums{};
  for (std::size_t i = 0; i + sums.size() <= data.size(); i += sums.size()) {
    for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += data[i + j];
  }
  return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
}

/// FLOP/s of one attempt with `count` instructions a thread.
double products_rate(const kernels::HostBackend& backend, DType dtype, int threads,
                     std::int64_t count) {
  double flops = 0;
  const dist::Stopwatch watch;
#pragma omp parallel for schedule(static, 1) num_threads(threads) reduction(+ : flops)
  for (int t = 0; t < threads; ++t) flops += backend.run_products(dtype, count);
  return flops / watch.seconds();
}

}  // namespace

double read_seconds(std::span<const std::uint64_t> data, int threads) {
  std::atomic<std::uint64_t> sum = 0;  // a result that is used, so that the reads happen
  const dist::Stopwatch watch;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int t = 0; t < threads; ++t) {
    const Range part = even_part(static_cast<std::int64_t>(data.size()), threads, t);
    sum += sum_of(data.subspan(part.begin, part.size()));
  }
  return watch.seconds();
}

double measure_memory(const Pool& pool, int threads) {
  const auto elements = pool.elements();
  const auto bytes = std::min<std::size_t>(elements.size() * 2, cold_pool_bytes());
  const std::span data(reinterpret_cast<const std::uint64_t*>(elements.data()),
                       bytes / sizeof(std::uint64_t));
  double best = read_seconds(data, threads);
  for (int i = 1; i < kAttempts; ++i) best = std::min(best, read_seconds(data, threads));
  return static_cast<double>(data.size_bytes()) / best;
}

double measure_products(const kernels::HostBackend& backend, DType dtype, int threads) {
  constexpr std::int64_t kTrial = 1 << 20;
  const dist::Stopwatch watch;
  double best = products_rate(backend, dtype, threads, kTrial);
  const auto count = static_cast<std::int64_t>(kTrial * kAttemptSeconds / watch.seconds());
  for (int i = 0; i < kAttempts; ++i) {
    best = std::max(best, products_rate(backend, dtype, threads, std::max(count, kTrial)));
  }
  return best;
}

std::optional<Roofline> Limits::roofline(const Point& point,
                                         const kernels::Backend& backend) const {
  const double bytes = point.kv_bytes() + point.weight_bytes();
  for (const DeviceLimit& d : devices) {
    if (d.backend != &backend || d.dtype != point.dtype) continue;
    return Roofline{.compute_seconds = point.flops() / d.flops_per_second,
                    .memory_seconds = bytes / d.bytes_per_second};
  }
  const auto product = std::find_if(products.begin(), products.end(), [&](const auto& p) {
    return p.backend == &backend && p.dtype == point.dtype && p.threads == point.threads;
  });
  const auto stream = std::find_if(memory.begin(), memory.end(),
                                   [&](const auto& m) { return m.threads == point.threads; });
  if (product == products.end() || stream == memory.end()) return std::nullopt;
  return Roofline{.compute_seconds = point.flops() / product->flops_per_second,
                  .memory_seconds = bytes / stream->bytes_per_second};
}

Limits measure_limits(std::span<const Point> points,
                      std::span<const kernels::HostBackend* const> backends, const Pool& pool) {
  std::set<std::pair<DType, int>> settings;
  std::set<int> thread_counts;
  for (const Point& point : points) {
    settings.insert({point.dtype, point.threads});
    thread_counts.insert(point.threads);
  }
  Limits limits;
  if (backends.empty()) return limits;
  for (const int threads : thread_counts) {
    limits.memory.push_back({threads, measure_memory(pool, threads)});
  }
  for (const kernels::HostBackend* backend : backends) {
    for (const auto& [dtype, threads] : settings) {
      limits.products.push_back(
          {backend, dtype, threads, measure_products(*backend, dtype, threads)});
    }
  }
  return limits;
}

}  // namespace mla::launch::bench
