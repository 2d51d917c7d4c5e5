#include "kernels/projected_plan.h"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "kernels/projected_kernel.h"

namespace mla::kernels {
namespace {

/// Most tokens times heads of a tile: with 576 elements a row, 4.5 MiB of workspace.
constexpr std::int64_t kMaxTileRows = 4096;

/// Heads of a small tile: as fast as 128 rows, and the weights of the next tile come into the cache
/// while this one computes.
constexpr std::int64_t kSmallTileHeads = 64;

/// What a byte of cache that arrives while the thread computes still costs, of what it costs when
/// the thread waits for it. Measured.
constexpr double kHiddenShare = 0.1;

/// Cost of one query token of `request` for `heads` heads, without what streaming the cache adds.
double token_cost(const Batch& batch, const Request& request, std::int64_t heads, CostModel cost) {
  cost.flop_per_kv_byte = 0;
  const std::int64_t chunks = batch.num_chunks(request);
  if (chunks == 0) return 0;
  const double full = cost.chunk(batch, request, 0, heads);
  const double last = cost.chunk(batch, request, chunks - 1, heads);
  return (full * static_cast<double>(chunks - 1) + last) / static_cast<double>(request.query_len);
}

/// Cuts the query tokens of the batch into runs of about equal cost.
std::vector<std::vector<ProjectedPart>> deal_tokens(const Batch& batch, int token_parts,
                                                    std::int64_t heads, const CostModel& cost) {
  double total = 0;
  for (const Request& r : batch.requests) {
    total += static_cast<double>(r.query_len) * (1 + token_cost(batch, r, heads, cost));
  }
  std::vector<std::vector<ProjectedPart>> dealt(token_parts);
  double before = 0;
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    const Request& r = batch.requests[i];
    const double each = 1 + token_cost(batch, r, heads, cost);
    for (std::int64_t q = 0; q < r.query_len; ++q, before += each) {
      const double share = (before + each / 2) / total * token_parts;
      auto& parts = dealt[std::min(token_parts - 1, static_cast<int>(share))];
      if (!parts.empty() && parts.back().request == static_cast<std::int64_t>(i)) {
        ++parts.back().queries.end;
      } else {
        parts.push_back({static_cast<std::int64_t>(i), {q, q + 1}});
      }
    }
  }
  return dealt;
}

/// A run of tokens of one thread.
struct TokenTile {
  Range tokens;
  Range parts;
};

/// Cuts `dealt`, the tokens from `begin` on, into runs of at most `most` and appends their parts to
/// `parts`.
std::vector<TokenTile> cut_tokens(const std::vector<ProjectedPart>& dealt, std::int64_t begin,
                                  std::int64_t most, std::vector<ProjectedPart>& parts) {
  std::vector<TokenTile> tiles;
  const auto num_parts = [&] { return static_cast<std::int64_t>(parts.size()); };
  for (const ProjectedPart& part : dealt) {
    for (std::int64_t q = part.queries.begin; q < part.queries.end;) {
      if (tiles.empty() || tiles.back().tokens.size() == most) {
        tiles.push_back({{begin, begin}, {num_parts(), num_parts()}});
      }
      TokenTile& tile = tiles.back();
      const std::int64_t taken = std::min(part.queries.end - q, most - tile.tokens.size());
      parts.push_back({part.request, {q, q + taken}});
      tile.tokens.end += taken;
      ++tile.parts.end;
      begin += taken;
      q += taken;
    }
  }
  return tiles;
}

/// Cuts `heads` into tiles of at most `most` that do not reach over KV heads.
std::vector<Range> cut_heads(Range heads, std::int64_t most, std::int64_t heads_per_kv) {
  std::vector<Range> tiles;
  for (std::int64_t begin = heads.begin; begin < heads.end;) {
    const std::int64_t group_end = (begin / heads_per_kv + 1) * heads_per_kv;
    const std::int64_t end = std::min({heads.end, begin + most, group_end});
    tiles.push_back({begin, end});
    begin = end;
  }
  return tiles;
}

/// Adds what `tile` costs to `sum`.
void add_cost(const Batch& batch, const ProjectionDims& dims, const ProjectedPlan& plan,
              const ProjectedTile& tile, const CostModel& cost, ProjectedCost& sum) {
  const MlaShape& shape = batch.shape;
  const double weights =
      static_cast<double>(tile.heads.size() * shape.d_v * (dims.d_nope + dims.d_v_head));
  sum.projection_flops += 2 * weights * static_cast<double>(tile.tokens.size());
  sum.weight_bytes += weights * static_cast<double>(size_of(batch.dtype));
  for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
    const ProjectedPart& part = plan.parts[p];
    const Request& request = batch.requests[part.request];
    sum.attention_flops += static_cast<double>(part.queries.size()) *
                           token_cost(batch, request, tile.heads.size(), cost);
    const std::int64_t calls = ceil_div(part.queries.size() * tile.heads.size(), kMaxRowsPerItem);
    sum.kv_bytes +=
        static_cast<double>(calls * request.context_len * shape.d_qk * size_of(batch.dtype));
  }
}

}  // namespace

CallSegments whole_call(std::int64_t num_chunks) {
  return {.count = 1, .offsets = {0, num_chunks}};
}

CallSegments halving_segments(std::int64_t num_chunks) {
  constexpr std::int64_t kSmallest = 8;  // of as many equal ones
  std::int64_t chunks = 1;
  while (chunks * kSmallest < num_chunks) chunks *= 2;
  const std::int64_t smallest = chunks;
  while (chunks * 4 <= num_chunks) chunks *= 2;
  CallSegments segments;
  for (std::int64_t begin = 0; begin < num_chunks;) {
    while (chunks > smallest && chunks * 2 > num_chunks - begin) chunks /= 2;
    begin = std::min(num_chunks, begin + chunks);
    segments.offsets[++segments.count] = begin;
  }
  return segments;
}

double ProjectedCost::total(int threads, const CostModel& cost) const {
  const double per_byte = cost.flop_per_kv_byte;
  const double kv = kv_bytes / threads * per_byte;
  const double weights = weight_bytes / threads * per_byte;
  // Weights that have come into the cache early still take as long to come from there.
  return std::max(attention_flops, kv) + kHiddenShare * kv + std::max(projection_flops, weights) +
         exposed_bytes * per_byte;
}

ProjectedPlan make_projected_plan(const Batch& batch, const ProjectionDims& dims, int head_parts,
                                  int token_parts, std::int64_t tile_heads, const CostModel& cost) {
  ProjectedPlan plan{.head_parts = head_parts,
                     .token_parts = token_parts,
                     .parts = {},
                     .tiles = {},
                     .thread_offsets = {0},
                     .cost = {}};
  const MlaShape& shape = batch.shape;
  const std::int64_t heads_per_thread = ceil_div(shape.h_q, head_parts);
  const std::int64_t widest = std::min(tile_heads, heads_per_thread);
  const std::int64_t most = std::clamp<std::int64_t>(kMaxTileRows / widest, 1, kMaxProductRows);
  std::int64_t begin = 0;
  for (const auto& dealt : deal_tokens(batch, token_parts, heads_per_thread, cost)) {
    const std::vector<TokenTile> runs = cut_tokens(dealt, begin, most, plan.parts);
    if (!runs.empty()) begin = runs.back().tokens.end;
    for (int part = 0; part < head_parts; ++part) {
      const Range heads = even_part(shape.h_q, head_parts, part);
      ProjectedCost sum;
      for (const TokenTile& run : runs) {
        for (const Range tile : cut_heads(heads, tile_heads, shape.heads_per_kv())) {
          plan.tiles.push_back({run.tokens, tile, run.parts});
          add_cost(batch, dims, plan, plan.tiles.back(), cost, sum);
        }
      }
      if (sum.attention_flops >= plan.cost.attention_flops) {
        plan.cost.attention_flops = sum.attention_flops;
        plan.cost.projection_flops = sum.projection_flops;
      }
      plan.cost.kv_bytes += sum.kv_bytes;
      plan.cost.weight_bytes += sum.weight_bytes;
      plan.thread_offsets.push_back(static_cast<std::int64_t>(plan.tiles.size()));
    }
  }
  plan.cost.exposed_bytes =
      static_cast<double>(widest * dims.d_nope * shape.d_v * size_of(batch.dtype));
  return plan;
}

ProjectedPlan make_projected_plan(const Batch& batch, const ProjectionDims& dims, int threads,
                                  const CostModel& cost) {
  ProjectedPlan best;
  double best_total = std::numeric_limits<double>::infinity();
  // Among equals, the grid with the most head parts: it reads the fewest weights.
  for (int head_parts = threads; head_parts >= 1; --head_parts) {
    if (threads % head_parts != 0) continue;
    for (const std::int64_t tile_heads : {kMaxRowsPerItem, kSmallTileHeads}) {
      ProjectedPlan plan =
          make_projected_plan(batch, dims, head_parts, threads / head_parts, tile_heads, cost);
      const double total = plan.cost.total(threads, cost);
      if (total >= best_total) continue;
      best = std::move(plan);
      best_total = total;
    }
  }
  return best;
}

std::string to_string(const ProjectedPlan& plan) {
  char line[256];
  std::snprintf(line, sizeof line,
                "%d x %d threads (heads x tokens), %zu tiles, the slowest thread %.3g GFLOP; read: "
                "cache %.3g MB, weights %.3g MB, %.3g MB per thread unhidden",
                plan.head_parts, plan.token_parts, plan.tiles.size(),
                (plan.cost.attention_flops + plan.cost.projection_flops) / 1e9,
                plan.cost.kv_bytes / 1e6, plan.cost.weight_bytes / 1e6,
                plan.cost.exposed_bytes / 1e6);
  return line;
}

}  // namespace mla::kernels
