#include <algorithm>
#include <cmath>
#include <cstdio>

#include <fmt/format.h>

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
        auto& floats =
            floats_.emplace_back(partial_floats(item.rows.size(), batch.shape.d_v), 1.0F);
        open.nodes.push_back({node, partial_at(floats.data(), item.rows.size(), batch.shape.d_v)});
      }
    }
  }

  const std::vector<WorkItem>& items() const { return items_; }
  const std::vector<kernels::OpenItem>& open() const { return open_; }

 private:
  std::vector<WorkItem> items_;
  std::vector<kernels::OpenItem> open_;
  std::vector<std::vector<float>> floats_;
};

/// Throws unless both baselines compute the same.
void check_baselines(const dist::Communicator& comm, const StripedPartials& striped) {
  const auto mine = gather_and_reduce_scatter(comm, striped);
  const auto all = user_op_allreduce(comm, striped);
  const std::size_t first = mine.size() * static_cast<std::size_t>(comm.rank());
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (std::abs(mine[i] - all[first + i]) > 1e-4F * std::abs(mine[i])) {
      throw Error(ExitCode::kVerificationFailed, "the baselines differ");
    }
  }
}

}  // namespace

void bench_exchange(const dist::Communicator& comm, const RankBenchOptions& options) {
  if (comm.rank() == 0) {
    fmt::print("microseconds of exchange and merge, median of {}\n{:>6} {:>9} {:>10} {:>12}",
               options.repeats, "ranks", "requests", "partials", "KiB sent");
    for (const std::string& exchange : options.exchanges) fmt::print(" {:>10}", exchange);
    fmt::print(" {:>12} {:>10} {:>8} {:>8}\n", "gather+r-s", "user op", "ratio", "ratio");
  }
  for (const std::int64_t requests : options.requests) {
    const Batch batch = make_bench_batch(options, requests, true);
    const Partition partition =
        make_partition(batch, parse_shard_mode(options.modes.front(), comm.size()), comm.size());
    const OpenPartials open(batch, partition.pieces_of(comm.rank()));
    const std::int64_t rows = round_up(requests * options.heads, comm.size());
    const StripedPartials striped = make_striped_partials(rows, batch.shape.d_v, comm.rank());
    check_baselines(comm, striped);
    dist::CombineStats stats;
    std::vector<double> packed;
    for (const std::string& exchange : options.exchanges) {
      dist::Combine combine(comm, batch, partition,
                            {.exchange = dist::parse_exchange(exchange),
                             .element = options.combine == "exact" ? dist::WireElement::kFp32
                                                                   : dist::WireElement::kBf16,
                             .threads = options.threads,
                             .pretended_ranks_per_node = options.pretended_ranks_per_node});
      ResultBuilder results(batch, partition, comm.rank());
      packed.push_back(median_seconds(comm, options.repeats, [&] {
        combine.post(open.items(), open.open());
        combine.finish(results);
      }));
      stats = combine.stats();
    }
    const double gather =
        median_seconds(comm, options.repeats, [&] { gather_and_reduce_scatter(comm, striped); });
    const double user_op =
        median_seconds(comm, options.repeats, [&] { user_op_allreduce(comm, striped); });
    std::int64_t partials = 0;
    std::int64_t bytes = 0;
    for (const dist::CombineStats& rank : comm.all_gather(stats)) {
      partials += rank.partials_sent;
      bytes += rank.bytes_sent;
    }
    if (comm.rank() != 0) continue;
    fmt::print("{:>6} {:>9} {:>10} {:>12}", comm.size(), requests, partials, bytes / 1024);
    for (const double seconds : packed) fmt::print(" {:>10.1f}", seconds * 1e6);
    fmt::print(" {:>12.1f} {:>10.1f} {:>8.1f} {:>8.1f}\n", gather * 1e6, user_op * 1e6,
               gather / packed.front(), user_op / packed.front());
    std::fflush(stdout);
  }
}

}  // namespace mla::bench
