#include "core/partition.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <utility>

#include "core/auto_mode.h"
#include "core/error.h"
#include "core/flat_cut.h"

namespace mla {
namespace {

constexpr std::int64_t kMinHeadsPerOwner = 8;

/// Appends what lies between two places.
void append_pieces(const Batch& batch, Place from, Place to, Range heads,
                   std::vector<Piece>& pieces) {
  if (heads.empty()) return;
  for (std::int64_t request = from.request; request <= to.request; ++request) {
    if (request == static_cast<std::int64_t>(batch.requests.size())) break;
    const std::int64_t chunks = batch.num_chunks(batch.requests[request]);
    const Range range{request == from.request ? from.chunk : 0,
                      request == to.request ? to.chunk : chunks};
    if (!range.empty()) pieces.push_back({request, heads, range});
  }
}

/// Heads are dealt to `head_slices` groups; each group cuts the chunks of all requests, in the same
/// places. With h_q heads for more slices than heads, some slices are empty and their ranks idle.
Partition grid_partition(const Batch& batch, ShardMode mode, std::int64_t head_slices,
                         std::int64_t kv_slices, const CostModel& cost) {
  Partition partition{.mode = mode, .piece_offsets = {0}, .pieces = {}, .ownerships = {}};
  const std::int64_t most_heads = ceil_div(batch.shape.h_q, head_slices);
  const std::vector<Place> cuts = flat_cut(batch, most_heads, kv_slices, cost);
  for (std::int64_t slice = 0; slice < head_slices; ++slice) {
    const Range heads = even_part(batch.shape.h_q, head_slices, slice);
    for (std::int64_t part = 0; part < kv_slices; ++part) {
      append_pieces(batch, cuts[part], cuts[part + 1], heads, partition.pieces);
      partition.piece_offsets.push_back(static_cast<std::int64_t>(partition.pieces.size()));
    }
  }
  return partition;
}

Partition batch_partition(const Batch& batch, ShardMode mode, int ranks, const CostModel& cost) {
  const auto num_requests = static_cast<std::int64_t>(batch.requests.size());
  // Each by itself: differences of sums would order equal requests by their rounding.
  std::vector<double> costs;
  for (const Request& request : batch.requests) {
    const std::int64_t chunks = batch.num_chunks(request);
    costs.push_back(chunks == 0 ? 0
                                : cost.chunk(batch, request, 0, batch.shape.h_q) *
                                          static_cast<double>(chunks - 1) +
                                      cost.chunk(batch, request, chunks - 1, batch.shape.h_q));
  }
  std::vector<std::int64_t> longest_first(num_requests);
  std::iota(longest_first.begin(), longest_first.end(), 0);
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](std::int64_t a, std::int64_t b) { return costs[a] > costs[b]; });
  std::vector<double> load(ranks, 0);
  std::vector<std::vector<std::int64_t>> requests_of(ranks);
  for (const std::int64_t request : longest_first) {
    const auto rank = std::min_element(load.begin(), load.end()) - load.begin();
    load[rank] += costs[request];
    requests_of[rank].push_back(request);
  }
  Partition partition{.mode = mode, .piece_offsets = {0}, .pieces = {}, .ownerships = {}};
  for (std::vector<std::int64_t>& requests : requests_of) {
    std::sort(requests.begin(), requests.end());
    for (const std::int64_t request : requests) {
      const Range chunks{0, batch.num_chunks(batch.requests[request])};
      if (!chunks.empty()) {
        partition.pieces.push_back({request, {0, batch.shape.h_q}, chunks});
      }
    }
    partition.piece_offsets.push_back(static_cast<std::int64_t>(partition.pieces.size()));
  }
  return partition;
}

/// A rank and how many chunks of a request it has.
struct Share {
  int rank = 0;
  std::int64_t chunks = 0;
};

/// The ranks among which the heads of a request are dealt out to be merged: those with at least
/// half as many chunks as the one that has most, but no more than are worth a message each.
std::vector<int> owners_among(const std::vector<Share>& shares, std::int64_t query_len,
                              std::int64_t heads) {
  std::int64_t most = 0;
  for (const Share& share : shares) most = std::max(most, share.chunks);
  const bool one_owner = query_len > 1;  // whose heads are apart in a partial
  const std::int64_t limit = one_owner ? 1 : ceil_div(heads, kMinHeadsPerOwner);
  std::vector<int> owners;
  for (const Share& share : shares) {
    if (static_cast<std::int64_t>(owners.size()) == limit) break;
    const std::int64_t enough = one_owner ? most : ceil_div(most, 2);
    if (share.chunks >= enough) owners.push_back(share.rank);
  }
  return owners;
}

/// A request without chunks goes to rank (request mod ranks).
void assign_owners(const Batch& batch, std::int64_t head_slices, Partition& partition) {
  const auto num_requests = static_cast<std::int64_t>(batch.requests.size());
  std::vector<Range> slices;
  for (std::int64_t slice = 0; slice < head_slices; ++slice) {
    const Range heads = even_part(batch.shape.h_q, head_slices, slice);
    if (!heads.empty()) slices.push_back(heads);
  }
  std::map<std::int64_t, std::int64_t> slice_of_first_head;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    slice_of_first_head[slices[s].begin] = static_cast<std::int64_t>(s);
  }
  const auto num_slices = static_cast<std::int64_t>(slices.size());
  std::vector<std::vector<Share>> shares(num_requests * num_slices);
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    for (const Piece& piece : partition.pieces_of(rank)) {
      shares[piece.request * num_slices + slice_of_first_head.at(piece.heads.begin)].push_back(
          {rank, piece.chunks.size()});
    }
  }
  for (std::int64_t request = 0; request < num_requests; ++request) {
    const std::int64_t query_len = batch.requests[request].query_len;
    for (std::int64_t s = 0; s < num_slices; ++s) {
      const Range heads = slices[s];
      auto owners = owners_among(shares[request * num_slices + s], query_len, heads.size());
      if (owners.empty()) owners.push_back(static_cast<int>(request % partition.ranks()));
      const auto count = static_cast<std::int64_t>(owners.size());
      for (std::int64_t i = 0; i < count; ++i) {
        const Range part = even_part(heads.size(), count, i);
        partition.ownerships.push_back(
            {request, {heads.begin + part.begin, heads.begin + part.end}, owners[i]});
      }
    }
  }
}

Partition fixed_partition(const Batch& batch, ShardMode mode, int ranks, const CostModel& cost) {
  std::int64_t head_slices = 1;
  std::int64_t kv_slices = 1;
  switch (mode.kind) {
    case ShardMode::Kind::kHeads:
      head_slices = ranks;
      break;
    case ShardMode::Kind::kKv:
      kv_slices = ranks;
      break;
    case ShardMode::Kind::kGrid:
      head_slices = mode.head_slices;
      kv_slices = mode.kv_slices;
      break;
    default:
      break;
  }
  Partition partition = mode.kind == ShardMode::Kind::kBatch
                            ? batch_partition(batch, mode, ranks, cost)
                            : grid_partition(batch, mode, head_slices, kv_slices, cost);
  assign_owners(batch, head_slices, partition);
  return partition;
}

}  // namespace

ShardMode parse_shard_mode(std::string_view text, int ranks) {
  if (text == "auto") return {.kind = ShardMode::Kind::kAuto};
  if (text == "heads") return {.kind = ShardMode::Kind::kHeads};
  if (text == "kv") return {.kind = ShardMode::Kind::kKv};
  if (text == "batch") return {.kind = ShardMode::Kind::kBatch};
  constexpr std::string_view kGridPrefix = "grid:";
  if (text.starts_with(kGridPrefix)) {
    ShardMode mode{.kind = ShardMode::Kind::kGrid};
    const char* const end = text.data() + text.size();
    const auto [x, head_error] =
        std::from_chars(text.data() + kGridPrefix.size(), end, mode.head_slices);
    if (head_error == std::errc{} && x != end && *x == 'x') {
      const auto [rest, kv_error] = std::from_chars(x + 1, end, mode.kv_slices);
      if (kv_error == std::errc{} && rest == end && mode.head_slices >= 1 && mode.kv_slices >= 1) {
        if (mode.head_slices <= ranks && mode.kv_slices <= ranks &&
            mode.head_slices * mode.kv_slices == ranks) {
          return mode;
        }
        throw InvalidArgument(
            "--mode", text,
            "a grid whose H times K is the number of ranks, " + std::to_string(ranks));
      }
    }
  }
  throw InvalidArgument("--mode", text, "auto, heads, kv, batch or grid:HxK");
}

std::string to_string(const ShardMode& mode) {
  switch (mode.kind) {
    case ShardMode::Kind::kAuto:
      return "auto";
    case ShardMode::Kind::kHeads:
      return "heads";
    case ShardMode::Kind::kKv:
      return "kv";
    case ShardMode::Kind::kBatch:
      return "batch";
    case ShardMode::Kind::kGrid:
      return "grid:" + std::to_string(mode.head_slices) + "x" + std::to_string(mode.kv_slices);
  }
  return "?";
}

Partition make_partition(const Batch& batch, ShardMode mode, int ranks, const CostModel& cost) {
  if (mode.kind != ShardMode::Kind::kAuto) return fixed_partition(batch, mode, ranks, cost);
  std::vector<WeighedMode> modes = weigh_modes(batch, ranks, cost);
  std::vector<double> costs;
  for (const WeighedMode& m : modes) costs.push_back(m.cost);
  return std::move(modes[preferred_mode(costs)].partition);
}

Partition make_partition(const Batch& batch, std::span<const std::int64_t> requests, ShardMode mode,
                         int ranks, const CostModel& cost) {
  Batch some = sizes_of(batch);
  for (const std::int64_t request : requests) {
    some.requests.push_back(sizes_of(batch.requests[request]));
  }
  Partition partition = make_partition(some, mode, ranks, cost);
  for (Piece& piece : partition.pieces) piece.request = requests[piece.request];
  for (Ownership& ownership : partition.ownerships) {
    ownership.request = requests[ownership.request];
  }
  return partition;
}

bool same_work(const Partition& a, const Partition& b) {
  return a.piece_offsets == b.piece_offsets && a.pieces == b.pieces && a.ownerships == b.ownerships;
}

std::span<const Ownership> owners_of(const Partition& partition, std::int64_t request,
                                     Range heads) {
  const auto first_at_or_after = [&](std::int64_t head) {
    return std::lower_bound(partition.ownerships.begin(), partition.ownerships.end(),
                            std::pair(request, head), [](const Ownership& o, const auto& place) {
                              return std::pair(o.request, o.heads.begin) < place;
                            });
  };
  return {first_at_or_after(heads.begin + 1) - 1, first_at_or_after(heads.end)};
}

}  // namespace mla
