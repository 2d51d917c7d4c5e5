#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/aligned_buffer.h"
#include "core/median.h"
#include "core/partition.h"
#include "core/split_plan.h"
#include "dist/combine.h"
#include "tests/bench/baselines.h"
#include "tests/bench/rank_bench.h"

namespace mla::bench {
namespace {

/// What a decode would leave of this rank's shared requests.
class OpenPartials {
 public:
  OpenPartials(const Batch& batch, std::span<const Piece> pieces) {
    std::vector<Piece> shared;
    for (const Piece& piece : pieces) {
      if (dist::is_shared(batch, piece)) shared.push_back(piece);
    }
    items_ = work_items(batch, shared);
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const WorkItem& item = items_[i];
      const std::int64_t num_chunks = batch.num_chunks(batch.requests[item.request]);
      kernels::OpenItem& open = open_.emplace_back();
      open.item = static_cast<std::int64_t>(i);
      for (const TreeNode node : maximal_nodes(item.chunks, num_chunks)) {
        const std::int64_t floats = partial_floats(item.rows.size(), batch.shape.d_v);
        floats_.emplace_back(static_cast<std::size_t>(floats));
        open.nodes.push_back(
            {node, partial_at(floats_.back().data(), item.rows.size(), batch.shape.d_v)});
      }
    }
  }

  const std::vector<WorkItem>& items() const { return items_; }
  const std::vector<kernels::OpenItem>& open() const { return open_; }

  /// Writes all of them anew, as the end of a decode would.
  void rewrite() {
    for (AlignedBuffer<float>& floats : floats_) std::ranges::fill(floats.span(), 1.0F);
  }

 private:
  std::vector<WorkItem> items_;
  std::vector<kernels::OpenItem> open_;
  std::vector<AlignedBuffer<float>> floats_;
};

/// Throws unless both baselines compute the same.
void check_baselines(const dist::Communicator& comm, Baselines& baselines) {
  const auto mine = baselines.gather_and_reduce_scatter();
  const auto all = baselines.user_op_allreduce();
  const std::size_t first = mine.size() * static_cast<std::size_t>(comm.rank());
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (std::abs(mine[i] - all[first + i]) > 1e-4F * std::abs(mine[i])) {
      throw Error(ExitCode::kVerificationFailed, "the baselines differ");
    }
  }
}

/// One exchange, ready to run again and again.
class Packed {
 public:
  Packed(const dist::Communicator& comm, const Batch& batch, const Partition& partition,
         const dist::CombineSettings& settings)
      : open_(batch, partition.pieces_of(comm.rank())),
        results_(batch, partition, comm.rank()),
        combine_(comm, batch, partition, settings) {}

  void prepare() { open_.rewrite(); }

  void run() {
    combine_.post(open_.items(), open_.open());
    combine_.finish(results_);
    runs_.push_back(combine_.stats());
  }

  const dist::CombineStats& stats() const { return combine_.stats(); }

  /// Median microseconds of a phase on the rank where it takes longest. Collective.
  double slowest(const dist::Communicator& comm, double dist::CombineStats::*phase) const {
    std::vector<double> seconds;
    for (const dist::CombineStats& run : runs_) seconds.push_back(run.*phase);
    const auto all = comm.all_gather(median(std::move(seconds)));
    return *std::max_element(all.begin(), all.end()) * 1e6;
  }

 private:
  std::vector<dist::CombineStats> runs_;
  OpenPartials open_;
  ResultBuilder results_;
  dist::Combine combine_;
};

struct Sent {
  std::int64_t partials = 0;
  std::int64_t bytes = 0;
};

/// By all ranks. Collective.
Sent sent_by_all(const dist::Communicator& comm, const dist::CombineStats& mine) {
  Sent sent;
  for (const dist::CombineStats& rank : comm.all_gather(mine)) {
    sent.partials += rank.partials_sent;
    sent.bytes += rank.bytes_sent;
  }
  return sent;
}

/// All ways of one batch, in turn, each on partials that its rank has just written. Collective.
void bench_batch(const dist::Communicator& comm, const RankBenchOptions& options,
                 std::int64_t requests) {
  const Batch batch = make_bench_batch(options, requests, true);
  const Partition partition =
      make_partition(batch, parse_shard_mode(options.modes.front(), comm.size()), comm.size());
  const std::int64_t rows = round_up(requests * options.heads, comm.size());
  Baselines baselines(comm, rows, batch.shape.d_v);
  check_baselines(comm, baselines);
  std::vector<std::unique_ptr<Packed>> packed;
  const auto rewrite = [&] { baselines.rewrite(); };
  std::vector<Work> works{{rewrite, [&] { baselines.gather_and_reduce_scatter(); }},
                          {rewrite, [&] { baselines.user_op_allreduce(); }}};
  for (const std::string& combine : options.combines) {
    for (const std::string& exchange : options.exchanges) {
      packed.push_back(std::make_unique<Packed>(
          comm, batch, partition,
          dist::CombineSettings{
              .exchange = dist::parse_exchange(exchange),
              .element = combine == "exact" ? dist::WireElement::kFp32 : dist::WireElement::kBf16,
              .threads = options.threads,
              .pretended_ranks_per_node = options.pretended_ranks_per_node,
              .cost = {}}));
      Packed* const way = packed.back().get();
      works.push_back({[way] { way->prepare(); }, [way] { way->run(); }});
    }
  }
  const std::vector<double> seconds = median_seconds(comm, options.repeats, works);
  for (std::size_t c = 0; c < options.combines.size(); ++c) {
    const std::size_t first = c * options.exchanges.size();
    const Packed& main = *packed[first];
    const Sent sent = sent_by_all(comm, main.stats());
    const double pack = main.slowest(comm, &dist::CombineStats::exchange_seconds);
    const double wait = main.slowest(comm, &dist::CombineStats::wait_seconds);
    const double merge = main.slowest(comm, &dist::CombineStats::merge_seconds);
    if (comm.rank() != 0) continue;
    fmt::print("{:>6} {:>9} {:>8} {:>9} {:>9}", comm.size(), requests, options.combines[c],
               sent.partials, sent.bytes / 1024);
    for (std::size_t e = 0; e < options.exchanges.size(); ++e) {
      fmt::print(" {:>10.1f}", seconds[2 + first + e] * 1e6);
    }
    fmt::print(" {:>11.1f} {:>9.1f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f}\n",
               seconds[0] * 1e6, seconds[1] * 1e6, seconds[0] / seconds[2 + first],
               seconds[1] / seconds[2 + first], pack, wait, merge);
    std::fflush(stdout);
  }
}

}  // namespace

void bench_exchange(const dist::Communicator& comm, const RankBenchOptions& options) {
  if (comm.rank() == 0) {
    fmt::print("microseconds of exchange and merge, medians of {}, in turn\n", options.repeats);
    fmt::print("{:>6} {:>9} {:>8} {:>9} {:>9}", "ranks", "requests", "combine", "partials",
               "KiB sent");
    for (const std::string& exchange : options.exchanges) fmt::print(" {:>10}", exchange);
    fmt::print(" {:>11} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7}\n", "gather+r-s", "user op", "times",
               "times", "pack", "wait", "merge");
  }
  for (const std::int64_t requests : options.requests) bench_batch(comm, options, requests);
}

}  // namespace mla::bench
