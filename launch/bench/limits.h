#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "launch/bench/point.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// How fast the products of `backend` are at most: its limiting instruction executed from
/// registers, on `threads` threads at once.
struct ProductLimit {
  const kernels::HostBackend* backend = nullptr;
  DType dtype = DType::kBf16;
  int threads = 1;
  double flops_per_second = 0;
};

/// How fast memory can be read: a streaming sum, `threads` threads at once.
struct MemoryLimit {
  int threads = 1;
  double bytes_per_second = 0;
};

/// How fast a GPU multiplies at most with what `backend` uses, and reads its memory.
struct DeviceLimit {
  const kernels::Backend* backend = nullptr;
  DType dtype = DType::kBf16;
  std::string instruction;
  double flops_per_second = 0;
  double bytes_per_second = 0;
};

/// What a point cannot be faster than.
struct Roofline {
  double compute_seconds = 0;
  double memory_seconds = 0;

  double seconds() const { return std::max(compute_seconds, memory_seconds); }
  bool compute_binds() const { return compute_seconds >= memory_seconds; }
};

/// What the machine can do, as measured.
struct Limits {
  std::vector<ProductLimit> products;
  std::vector<MemoryLimit> memory;
  std::vector<DeviceLimit> devices;

  /// Of `point` on `backend`; nothing where that was not measured.
  std::optional<Roofline> roofline(const Point& point, const kernels::Backend& backend) const;
};

/// Seconds that `threads` threads take to read all of `data` once.
double read_seconds(std::span<const std::uint64_t> data, int threads);

/// Bytes per second of reading `pool`: the best of several attempts, as all of these.
double measure_memory(const Pool& pool, int threads);

/// FLOP/s of the products of `backend`.
double measure_products(const kernels::HostBackend& backend, DType dtype, int threads);

/// Measures everything that the points need of the CPU, about a third of a second for each limit:
/// the best of several attempts.
Limits measure_limits(std::span<const Point> points,
                      std::span<const kernels::HostBackend* const> backends, const Pool& pool);

}  // namespace mla::launch::bench
