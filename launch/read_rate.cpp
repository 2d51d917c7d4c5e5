#include "launch/read_rate.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/range.h"
#include "dist/stopwatch.h"
#include "launch/bench/limits.h"
#include "launch/bench/pool.h"
#include "proto/file_io.h"

namespace mla::launch {

double read_rate(const dist::Communicator& comm, int threads) {
  constexpr int kAttempts = 10;
  const std::int64_t bytes = bench::cold_pool_bytes() / comm.node().size();
  const proto::MappedMemory memory(bytes, "measuring how fast it can be read");
  auto* const data = static_cast<std::uint64_t*>(memory.data());
  const std::int64_t size = bytes / 8;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int t = 0; t < threads; ++t) {  // so that a page lies near the thread that reads it
    const Range part = even_part(size, threads, t);
    std::fill(data + part.begin, data + part.end, 1);
  }
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kAttempts; ++i) {
    comm.barrier();
    const dist::Stopwatch watch;
    bench::read_seconds({data, static_cast<std::size_t>(size)}, threads);
    comm.barrier();  // neither a rank that is done early nor one that began late counts as fast
    const auto seconds = comm.all_gather(watch.seconds());
    best = std::min(best, *std::max_element(seconds.begin(), seconds.end()));
  }
  return static_cast<double>(bytes) / best;
}

}  // namespace mla::launch
