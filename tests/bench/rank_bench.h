#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/batch.h"
#include "dist/communicator.h"

namespace mla::bench {

/// What `rank_bench` was asked for.
struct RankBenchOptions {
  std::filesystem::path trace;  ///< a Mooncake or Azure trace; else `seqlen` for each request
  std::int64_t seqlen = 4096;
  std::vector<std::int64_t> requests{32};
  std::int64_t heads = 128;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  std::vector<std::string> modes{"kv"};
  std::string backend = "auto";
  std::vector<std::string> exchanges{"auto"};
  std::vector<std::string> combines{"exact"};
  int threads = 1;
  int pretended_ranks_per_node = 0;
  int repeats = 7;
  int rounds = 1;
};

/// The batch to measure with; its tensors are generated.
Batch make_bench_batch(const RankBenchOptions& options, std::int64_t requests, bool lengths_only);

/// What is measured, and what comes before it each time.
struct Work {
  std::function<void()> prepare;
  std::function<void()> run;
};

/// What each of `works` takes from a barrier to its end on the slowest rank, the median over
/// repeats. They run in turn, as machines change their speed; their first runs warm up. Collective.
std::vector<double> median_seconds(const dist::Communicator& comm, int repeats,
                                   std::span<const Work> works);

/// Whole steps of decoding, and where their time goes. Collective.
void bench_decode(const dist::Communicator& comm, const RankBenchOptions& options);

/// The exchange and merge alone, beside what others do. Collective.
void bench_exchange(const dist::Communicator& comm, const RankBenchOptions& options);

}  // namespace mla::bench
