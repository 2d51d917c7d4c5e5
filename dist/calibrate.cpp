#include "dist/calibrate.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/chunk_tree.h"
#include "core/generator.h"
#include "core/median.h"
#include "core/partial.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "dist/combine.h"
#include "dist/kernel_speed.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

constexpr int kRepeats = 7;
constexpr double kEnoughSeconds = 0.01;         // for one kind of message
constexpr double kSecondsPerReadByte = 0.4e-9;  // a file that lies in memory, read by one thread

/// Over the ranks that measured something. Collective.
double median_of_ranks(const Communicator& comm, double mine) {
  std::vector<double> all = comm.all_gather(mine);
  std::erase(all, 0.0);
  return median(std::move(all));
}

/// Of making a chunk of cache in new memory: its first touch is a good part of what it costs.
double seconds_per_generated_byte(const Batch& batch) {
  const std::int64_t tokens = std::min(batch.chunk_tokens, kDefaultChunkTokens);
  const auto elements = static_cast<std::size_t>(tokens * batch.shape.h_kv * batch.shape.d_qk);
  const auto cache = std::make_unique_for_overwrite<std::uint16_t[]>(elements);
  const Stopwatch watch;
  generate_elements(0, GeneratedTensor::kKvCache, 0, 0, batch.dtype, {cache.get(), elements});
  return watch.seconds() / static_cast<double>(elements * size_of(batch.dtype));
}

/// Collective.
void measure_computing(const Communicator& comm, const Batch& batch,
                       const kernels::Backend& backend, const kernels::DecoderOptions& options,
                       Calibration& calibration) {
  KernelSpeed speed;
  double loaded_byte = kSecondsPerReadByte;
  comm.together([&] {
    speed = measure_kernels(batch, backend, options);
    if (batch.kv_cache.kind == TensorSource::Kind::kGenerated) {
      loaded_byte = seconds_per_generated_byte(batch);
    }
  });
  calibration.flop_per_second = median_of_ranks(comm, speed.flop_per_second);
  calibration.seconds_per_kv_byte = median_of_ranks(comm, speed.seconds_per_kv_byte);
  calibration.padded_values = median(comm.all_gather(speed.padded_values));
  calibration.seconds_per_loaded_byte = median_of_ranks(comm, loaded_byte / options.threads);
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
