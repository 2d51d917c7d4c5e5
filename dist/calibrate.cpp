#include "dist/calibrate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core/chunk_tree.h"
#include "core/contiguous_view.h"
#include "core/generator.h"
#include "core/median.h"
#include "core/partial.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "dist/combine.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

constexpr int kRepeats = 7;
constexpr double kEnoughSeconds = 0.01;  // for one measurement, beside its first run
constexpr std::int64_t kProbedBytes = 32
                                      << 20;  // of cache, on each rank: more than its caches hold
constexpr std::int64_t kMostChunks = 4096;
constexpr double kMostTimesMean =
    4;                            // that rows may add faster than they are computed on the whole
constexpr double kNoticed = 0.1;  // a smaller difference between ranks may be chance
constexpr double kMostSlowness = 4;
constexpr double kSecondsPerReadByte = 0.4e-9;  // a file that lies in memory, read by one thread

/// Over the ranks that measured something. Collective.
double median_of_ranks(const Communicator& comm, double mine) {
  std::vector<double> all = comm.all_gather(mine);
  std::erase(all, 0.0);
  return median(std::move(all));
}

/// One request for each thread, with its tensors: as much cache as a rank may have to stream.
class KernelProbe {
 public:
  KernelProbe(const Batch& like, int threads) : threads_(threads) {
    batch_.shape = like.shape;
    batch_.dtype = like.dtype;
    batch_.out_dtype = like.out_dtype;
    batch_.page_block_size = batch_.chunk_tokens = std::min(like.chunk_tokens, kDefaultChunkTokens);
    batch_.softmax_scale = like.softmax_scale;
    const std::int64_t page_bytes = batch_.page_elements() * size_of(like.dtype);
    chunks_ = std::clamp<std::int64_t>(probed_bytes(like) / (threads * page_bytes), 1, kMostChunks);
    batch_.num_pages = threads * chunks_;
    batch_.requests.resize(static_cast<std::size_t>(threads));
    for (int t = 0; t < threads; ++t) {
      batch_.requests[t].context_len = chunks_ * batch_.chunk_tokens;
      batch_.requests[t].block_table.resize(static_cast<std::size_t>(chunks_));
      std::iota(batch_.requests[t].block_table.begin(), batch_.requests[t].block_table.end(),
                static_cast<std::int32_t>(t * chunks_));
    }
    // Left alone: touching memory first is a good part of what a cache costs.
    cache_ = std::make_unique_for_overwrite<std::uint16_t[]>(
        static_cast<std::size_t>(batch_.num_pages * batch_.page_elements()));
    query_.resize(static_cast<std::size_t>(like.shape.h_q * like.shape.d_qk));
    generate_elements(0, GeneratedTensor::kQuery, 0, 0, batch_.dtype, query_);
    const auto page = static_cast<std::size_t>(batch_.page_elements());
    const Stopwatch watch;
    generate_elements(0, GeneratedTensor::kKvCache, 0, 0, batch_.dtype, {cache_.get(), page});
    seconds_per_generated_byte_ = watch.seconds() / static_cast<double>(page_bytes);
    for (std::int64_t p = 1; p < batch_.num_pages; ++p) {
      std::copy_n(cache_.get(), page, cache_.get() + static_cast<std::size_t>(p) * page);
    }
  }

  /// By one thread.
  double seconds_per_generated_byte() const { return seconds_per_generated_byte_; }

  /// Bytes of cache that a chunk of each request reads.
  double chunk_bytes() const {
    return static_cast<double>(threads_ * batch_.page_elements() * size_of(batch_.dtype));
  }

  /// What a chunk of each request costs for `heads` heads by a model.
  double chunk_cost(std::int64_t heads, const CostModel& cost) const {
    return threads_ * cost.chunk(batch_, batch_.requests[0], 0, heads);
  }

  /// Of computing `heads` heads of a chunk of each request: as many chunks as fill the time for a
  /// measurement, of those that are there. @throws what make_decoder throws
  double chunk_seconds(const kernels::Backend& backend, const kernels::DecoderOptions& options,
                       std::int64_t heads) const {
    const double guess = seconds(backend, options, heads, 1);
    const auto chunks = static_cast<std::int64_t>(
        std::clamp(kEnoughSeconds / guess, 1.0, static_cast<double>(chunks_)));
    if (chunks == 1) return guess;
    return seconds(backend, options, heads, chunks) / static_cast<double>(chunks);
  }

 private:
  /// No more than the caches of a batch that is small.
  static std::int64_t probed_bytes(const Batch& like) {
    std::int64_t bytes = 0;
    for (const Request& r : like.requests) {
      bytes += r.context_len * like.shape.h_kv * like.shape.d_qk * size_of(like.dtype);
    }
    return std::min(bytes, kProbedBytes);
  }

  double seconds(const kernels::Backend& backend, const kernels::DecoderOptions& options,
                 std::int64_t heads, std::int64_t chunks) const {
    std::vector<Piece> pieces;
    std::vector<Ownership> owned;
    for (int t = 0; t < threads_; ++t) {
      pieces.push_back({t, {0, heads}, {0, chunks}});
      if (chunks == chunks_) owned.push_back({t, {0, heads}, 0});
    }
    const kernels::RankInputs tensors = inputs();
    const auto decoder = backend.make_decoder(batch_, pieces, tensors, options);
    ResultBuilder results(batch_, owned);
    decoder->run(results);
    std::vector<double> times;
    const Stopwatch all;
    do {
      const Stopwatch watch;
      decoder->run(results);
      times.push_back(watch.seconds());
    } while (times.size() < kRepeats && all.seconds() < kEnoughSeconds);
    return median(std::move(times));
  }

  kernels::RankInputs inputs() const {
    const MlaShape& shape = batch_.shape;
    kernels::RankInputs inputs{.kv = contiguous_view(batch_, cache_.get()), .pieces = {}};
    for (const Request& request : batch_.requests) {
      inputs.pieces.push_back({.block_table = request.block_table.data(),
                               .q = query_.data(),
                               .first_head = 0,
                               .q_token_stride = shape.h_q * shape.d_qk,
                               .q_head_stride = shape.d_qk});
    }
    return inputs;
  }

  int threads_;
  std::int64_t chunks_ = 1;  // of each request
  Batch batch_;
  std::unique_ptr<std::uint16_t[]> cache_;
  std::vector<std::uint16_t> query_;
  double seconds_per_generated_byte_ = 0;
};

/// What a backend's kernels take, measured.
struct KernelSpeed {
  double flop_per_second = 0;
  double seconds_per_kv_byte = 0;  // 0: unknown
  double padded_values = 0;
  using Seconds = std::array<double, 3>;
  Seconds seconds{};  // of a chunk of all rows, few and one; 0: not measured
};

/// What a chunk takes is a straight line over its rows: what streaming the cache takes, and so much
/// for each row. All rows and a vector of them find it; a lone row tells whether those that it
/// lacks cost as much. @throws what make_decoder throws
KernelSpeed kernel_speed(const KernelProbe& probe, const MlaShape& shape,
                         const kernels::Backend& backend, const kernels::DecoderOptions& options) {
  const std::int64_t all = shape.h_q;
  const std::int64_t few = std::min(kRowsPerVector, shape.heads_per_kv());
  const double all_seconds = probe.chunk_seconds(backend, options, all);
  CostModel cost;
  KernelSpeed speed{.flop_per_second = probe.chunk_cost(all, cost) / all_seconds};
  speed.seconds[0] = all_seconds;
  if (shape.h_kv > 1) return speed;
  if (few < all) {
    const double few_seconds = probe.chunk_seconds(backend, options, few);
    speed.seconds[1] = few_seconds;
    const CostModel products{.flop_per_kv_byte = 0};
    const double all_flop = probe.chunk_cost(all, products);
    const double few_flop = probe.chunk_cost(few, products);
    const double mean = all_flop / all_seconds;
    const double seconds = std::max(all_seconds - few_seconds, 1e-9);
    const double rate = std::clamp((all_flop - few_flop) / seconds, mean, kMostTimesMean * mean);
    speed.flop_per_second = rate;
    speed.seconds_per_kv_byte = std::max(0.0, few_seconds - few_flop / rate) / probe.chunk_bytes();
    cost.flop_per_kv_byte = speed.seconds_per_kv_byte * rate;
  }
  if (few == 1) return speed;
  speed.seconds[2] = probe.chunk_seconds(backend, options, 1);
  const double lone = speed.seconds[2] * speed.flop_per_second;
  const double unpadded = probe.chunk_cost(1, cost);
  cost.padded_values = 1;
  speed.padded_values =
      std::clamp((lone - unpadded) / (probe.chunk_cost(1, cost) - unpadded), 0.0, 1.0);
  return speed;
}

/// As in CostModel: for each kind of measurement a rank's time over the median rank's, of those the
/// median, for something may come in between. Of what is slow now some will have passed when the
/// job runs, so the square root counts. Collective.
std::vector<double> slowness_of_ranks(const Communicator& comm, const KernelSpeed::Seconds& mine) {
  const auto all = comm.all_gather(mine);
  std::vector<std::vector<double>> ratios(all.size());
  for (std::size_t kind = 0; kind < mine.size(); ++kind) {
    std::vector<double> times;
    for (const auto& rank : all) times.push_back(rank[kind]);
    const double middle = median(times);
    if (middle <= 0) continue;
    for (std::size_t r = 0; r < all.size(); ++r) ratios[r].push_back(times[r] / middle);
  }
  std::vector<double> slowness;
  for (std::vector<double>& of_rank : ratios) {
    const double ratio = median(std::move(of_rank));
    const bool is_noticed = std::abs(ratio - 1) >= kNoticed;
    slowness.push_back(is_noticed ? std::sqrt(std::min(ratio, kMostSlowness)) : 1);
  }
  return slowness;
}

/// Collective.
void measure_computing(const Communicator& comm, const Batch& batch,
                       const kernels::Backend& backend, const kernels::DecoderOptions& options,
                       Calibration& calibration) {
  KernelSpeed speed;
  double loaded_byte = 0;
  comm.together([&] {
    const KernelProbe probe(batch, options.threads);
    speed = kernel_speed(probe, batch.shape, backend, options);
    loaded_byte =
        (batch.kv_cache.kind == TensorSource::Kind::kGenerated ? probe.seconds_per_generated_byte()
                                                               : kSecondsPerReadByte) /
        options.threads;
  });
  calibration.flop_per_second = median_of_ranks(comm, speed.flop_per_second);
  calibration.slowness = slowness_of_ranks(comm, speed.seconds);
  calibration.seconds_per_kv_byte = median_of_ranks(comm, speed.seconds_per_kv_byte);
  calibration.padded_values = median(comm.all_gather(speed.padded_values));
  calibration.seconds_per_loaded_byte = median_of_ranks(comm, loaded_byte);
}

/// Two requests of two chunks, a chunk of each on either of two ranks, each of which owns one.
class PairProbe {
 public:
  PairProbe(std::int64_t heads, std::int64_t d_v) {
    batch_.shape = {.h_q = heads, .h_kv = 1, .d_qk = d_v, .d_v = d_v};
    batch_.requests.resize(2);
    for (Request& request : batch_.requests) request.context_len = 2 * batch_.chunk_tokens;
    partition_ = {.mode = {.kind = ShardMode::Kind::kKv},
                  .piece_offsets = {0, 2, 4},
                  .pieces = {{0, {0, heads}, {0, 1}},
                             {1, {0, heads}, {0, 1}},
                             {0, {0, heads}, {1, 2}},
                             {1, {0, heads}, {1, 2}}},
                  .ownerships = {{0, {0, heads}, 0}, {1, {0, heads}, 1}}};
  }

  /// That either rank sends, as `loads_of` counts them.
  double bytes() const {
    return static_cast<double>(batch_.shape.h_q * (batch_.shape.d_v + 2) * 4);
  }

  /// Of one exchange there and back. Collective over `pair`, two ranks.
  double seconds(const Communicator& pair, const CombineSettings& settings) const {
    const std::vector<WorkItem> items = work_items(batch_, partition_.pieces_of(pair.rank()));
    std::vector<std::vector<float>> floats(
        items.size(),
        std::vector<float>(
            static_cast<std::size_t>(partial_floats(batch_.shape.h_q, batch_.shape.d_v)), 1.0F));
    std::vector<kernels::OpenItem> open;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const TreeNode node = maximal_nodes(items[i].chunks, 2).front();
      open.push_back({static_cast<std::int64_t>(i),
                      {{node, partial_at(floats[i].data(), batch_.shape.h_q, batch_.shape.d_v)}}});
    }
    Combine combine(pair, batch_, partition_, settings);
    ResultBuilder results(batch_, partition_, pair.rank());
    const auto exchange = [&] {
      const Stopwatch watch;
      combine.post(items, open);
      combine.finish(results);
      return watch.seconds();
    };
    const std::vector<double> first = pair.all_gather(exchange());
    if (std::max(first[0], first[1]) > kEnoughSeconds / kRepeats) return first[0];
    std::vector<double> times;
    for (int repeat = 0; repeat < kRepeats; ++repeat) times.push_back(exchange());
    return median(std::move(times));
  }

 private:
  Batch batch_;
  Partition partition_;
};

/// Collective over `comm`, and over each `pair`; those of a single rank learn from the others.
WaySeconds measure_way(const Communicator& comm, const Communicator& pair, std::int64_t d_v,
                       const CombineSettings& settings) {
  const PairProbe small(1, d_v);
  const PairProbe large(kMaxRowsPerItem, d_v);
  WaySeconds mine;
  comm.together([&] {
    if (pair.size() != 2) return;
    const double small_seconds = small.seconds(pair, settings);
    const double large_seconds = large.seconds(pair, settings);
    mine.per_byte = std::max(0.0, large_seconds - small_seconds) / (large.bytes() - small.bytes());
    mine.per_message = std::max(0.0, small_seconds - mine.per_byte * small.bytes());
  });
  return {.per_message = median_of_ranks(comm, mine.per_message),
          .per_byte = median_of_ranks(comm, mine.per_byte)};
}

/// The node of each rank, numbered from 0 in the order of their first ranks. Collective.
std::vector<int> find_nodes(const Communicator& comm, const Communicator& node) {
  const std::vector<int> first_ranks = comm.all_gather(node.all_gather(comm.rank()).front());
  std::vector<int> sorted = first_ranks;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::vector<int> nodes;
  for (const int first : first_ranks) {
    nodes.push_back(
        static_cast<int>(std::lower_bound(sorted.begin(), sorted.end(), first) - sorted.begin()));
  }
  return nodes;
}

/// As in CostModel; 1 if the ranks of nodes do not follow one another in runs of equal length.
int ranks_per_node(const std::vector<int>& nodes) {
  const auto size = static_cast<int>(std::count(nodes.begin(), nodes.end(), 0));
  if (size == static_cast<int>(nodes.size())) return 0;
  for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
    if (nodes[rank] != static_cast<int>(rank) / size) return 1;
  }
  return size;
}

/// Collective.
void measure_ways(const Communicator& comm, std::int64_t d_v, const DecodeSettings& settings,
                  Calibration& calibration) {
  const int pretended = settings.pretended_ranks_per_node;
  const Communicator node = pretended > 0 ? comm.split(comm.rank() / pretended) : comm.node();
  const std::vector<int> nodes = find_nodes(comm, node);
  CombineSettings combine{
      .exchange = settings.exchange,
      .element = settings.compute.exact ? WireElement::kFp32 : WireElement::kBf16,
      .threads = settings.compute.threads};
  calibration.near = measure_way(comm, node.split(node.rank() / 2), d_v, combine);
  calibration.ranks_per_node = ranks_per_node(nodes);
  if (calibration.ranks_per_node == 0) return;
  // Ranks of the same place on two nodes.
  const Communicator across = comm.split(nodes[comm.rank()] / 2 * comm.size() + node.rank());
  combine.pretended_ranks_per_node = pretended > 0 ? 1 : 0;
  if (combine.exchange == ExchangeKind::kShm) combine.exchange = ExchangeKind::kP2p;
  calibration.far = measure_way(comm, across, d_v, combine);
}

}  // namespace

Calibration calibrate(const Communicator& comm, const Batch& batch, const kernels::Backend& backend,
                      const DecodeSettings& settings, double min_job_seconds) {
  Calibration calibration;
  if (!backend.gpus().empty()) return calibration;
  measure_computing(comm, batch, backend, settings.compute, calibration);
  if (comm.size() > 1) {
    const Partition even = make_partition(batch, {.kind = ShardMode::Kind::kKv}, comm.size());
    const CostModel cost = calibrated_model(calibration);
    const double seconds =
        predicted_cost(batch, loads_of(batch, even, cost, CountPages::kNo), cost).total() /
        calibration.flop_per_second;
    if (seconds >= min_job_seconds) measure_ways(comm, batch.shape.d_v, settings, calibration);
  }
  return calibration;
}

}  // namespace mla::dist
