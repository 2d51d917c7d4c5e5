#include "kernels/cuda/device_plan.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <string>

#include "core/chunk_tree.h"
#include "core/error.h"
#include "core/partial.h"

namespace mla::kernels::cuda {
namespace {

/// A block merges at least so many elements of the output: fewer are not worth waiting for.
constexpr std::int64_t kElementsPerMergingBlock = 512;

std::int32_t int32(std::int64_t value) {
  return static_cast<std::int32_t>(value);
}

void check_fits(std::string_view field, std::int64_t value) {
  if (value >= 0 && value <= std::numeric_limits<std::int32_t>::max()) return;
  throw InvalidArgument(field, std::to_string(value), "0 to 2147483647");
}

std::int64_t num_chunks_of(const DeviceItem& item, const PlanSizes& sizes) {
  return ceil_div(item.context_len, sizes.chunk_tokens);
}

void check(std::span<const DeviceItem> items, const PlanSizes& sizes) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    const DeviceItem& item = items[i];
    const std::string name = "items[" + std::to_string(i) + "].";
    check_fits(name + "kv_head", item.kv_head);
    check_fits(name + "heads", item.heads);
    check_fits(name + "query_len", item.query_len);
    check_fits(name + "context_len", item.context_len);
    check_fits(name + "query_len * heads", item.query_len * item.heads);
    const Range all{0, num_chunks_of(item, sizes)};
    if (!sizes.exact && item.chunks != all) {
      throw InvalidArgument(
          name + "chunks",
          "[" + std::to_string(item.chunks.begin) + ", " + std::to_string(item.chunks.end) + ")",
          "all " + std::to_string(all.end) + " chunks of the request, or an exact plan");
    }
  }
}

/// Rows of one item that a part can have at most.
struct RowTile {
  const DeviceItem* item = nullptr;
  Range rows;  ///< of query_len * heads
};

/// Parts as they are dealt out, before they are linked.
struct DealtPart {
  int team = 0;
  Part part;
};

class PlanMaker {
 public:
  PlanMaker(std::span<const DeviceItem> items, const PlanSizes& sizes,
            const KernelGeometry& geometry)
      : items_(items), sizes_(sizes), geometry_(geometry) {
    plan_.geometry = geometry;
    plan_.exact = sizes.exact;
    plan_.part_alignment = int32(sizes.exact ? std::gcd(sizes.chunk_tokens, geometry.tile_tokens)
                                             : geometry.tile_tokens);
    lay_out_nodes();
  }

  DevicePlan make() {
    sizes_.exact ? add_chunks() : add_runs();
    link();
    share_merges();
    return std::move(plan_);
  }

 private:
  bool is_whole(const DeviceItem& item) const {
    return item.chunks == Range{0, num_chunks_of(item, sizes_)};
  }

  std::vector<RowTile> row_tiles(const DeviceItem& item) const {
    std::vector<RowTile> tiles;
    for (std::int64_t row = item.rows.begin; row < item.rows.end; row += geometry_.rows_per_part) {
      tiles.push_back({&item, {row, std::min(item.rows.end, row + geometry_.rows_per_part)}});
    }
    return tiles;
  }

  void lay_out_nodes() {
    plan_.node_offsets.push_back(0);
    for (const DeviceItem& item : items_) {
      const std::int64_t nodes =
          is_whole(item) ? 0 : count_maximal_nodes(item.chunks, num_chunks_of(item, sizes_));
      plan_.partial_floats += nodes * partial_floats(item.rows.size(), sizes_.d_v);
      plan_.node_offsets.push_back(plan_.partial_floats);
    }
  }

  Part part_of(const RowTile& tile, Range tokens) const {
    const DeviceItem& item = *tile.item;
    Part part;
    part.q = item.q;
    part.out = item.out;
    part.lse = item.lse;
    part.block_table = item.block_table;
    part.kv_head = int32(item.kv_head);
    part.heads = int32(item.heads);
    part.query_len = int32(item.query_len);
    part.context_len = int32(item.context_len);
    part.row_begin = int32(tile.rows.begin);
    part.rows = int32(tile.rows.size());
    part.token_begin = int32(std::min(tokens.begin, item.context_len));
    part.token_end = int32(std::min(tokens.end, item.context_len));
    return part;
  }

  /// A merge of `count` partials of the tile, with room for them.
  std::int32_t add_merge(const RowTile& tile, std::int64_t count, PartialPlace node) {
    Merge merge;
    merge.out = tile.item->out;
    merge.lse = tile.item->lse;
    merge.first = {plan_.partial_floats, int32(tile.rows.size()), 0};
    merge.node = node;
    merge.stride = partial_floats(tile.rows.size(), sizes_.d_v);
    if (plan_.merges_by_mail()) {
      const auto most = static_cast<std::uint64_t>(std::min(count, geometry_.mail_slices));
      merge.slices = int32(static_cast<std::int64_t>(std::bit_floor(most)));
      merge.stride =
          geometry_.rows_per_part * (sizes_.d_v + 2 * geometry_.blocks_per_team * merge.slices);
    }
    merge.heads = int32(tile.item->heads);
    merge.row_begin = int32(tile.rows.begin);
    merge.rows = int32(tile.rows.size());
    merge.count = int32(count);
    plan_.partial_floats += count * merge.stride;
    check_fits("merges", std::ssize(plan_.merges) + 1);
    plan_.merges.push_back(merge);
    return int32(std::ssize(plan_.merges) - 1);
  }

  /// Lets `part` leave the partial that is number `index` of the merge.
  void lead_to(std::int32_t merge, std::int64_t index, Part& part) const {
    part.merge = merge;
    part.slices = plan_.merges[merge].slices;
    part.partial = plan_.merges[merge].first;
    part.partial.offset += index * plan_.merges[merge].stride;
  }

  // Exact plans: a part for every chunk.

  void add_chunks() {
    std::int64_t num_parts = 0;
    for (const DeviceItem& item : items_) {
      num_parts += std::max<std::int64_t>(1, item.chunks.size()) *
                   ceil_div(item.rows.size(), geometry_.rows_per_part);
    }
    parts_.reserve(num_parts);
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const DeviceItem& item = items_[i];
      const std::int64_t num_chunks = num_chunks_of(item, sizes_);
      if (num_chunks == 0) {
        for (const RowTile& tile : row_tiles(item)) parts_.push_back({0, part_of(tile, {})});
      } else if (is_whole(item)) {
        add_node(item, item.chunks, -1);
      } else {
        std::int64_t offset = plan_.node_offsets[i];
        for (const TreeNode node : maximal_nodes(item.chunks, num_chunks)) {
          add_node(item, chunks_of(node, num_chunks), offset);
          offset += partial_floats(item.rows.size(), sizes_.d_v);
        }
      }
    }
    std::vector<double> costs;
    costs.reserve(parts_.size());
    for (const DealtPart& p : parts_) {
      const std::int64_t tokens = std::int64_t{p.part.token_end} - p.part.token_begin;
      costs.push_back(geometry_.costs.part +
                      static_cast<double>(ceil_div(tokens, geometry_.tile_tokens)));
    }
    const std::vector<int> teams = deal_in_order(costs, geometry_.teams);
    for (std::size_t p = 0; p < parts_.size(); ++p) parts_[p].team = teams[p];
  }

  /// The parts of one tree node. Tiles that read the same keys follow one another, so that the
  /// second finds them in the cache.
  void add_node(const DeviceItem& item, Range chunks, std::int64_t node_offset) {
    const std::vector<RowTile> tiles = row_tiles(item);
    const auto first_merge = int32(std::ssize(plan_.merges));
    const auto node_place = [&](const RowTile& tile) {
      if (node_offset < 0) return PartialPlace{};
      return PartialPlace{node_offset, int32(item.rows.size()),
                          int32(tile.rows.begin - item.rows.begin)};
    };
    if (chunks.size() > 1) {
      for (const RowTile& tile : tiles) add_merge(tile, chunks.size(), node_place(tile));
    }
    for (std::int64_t c = chunks.begin; c < chunks.end; ++c) {
      const Range tokens{c * sizes_.chunk_tokens, (c + 1) * sizes_.chunk_tokens};
      for (std::size_t t = 0; t < tiles.size(); ++t) {
        Part part = part_of(tiles[t], tokens);
        if (chunks.size() > 1) {
          lead_to(first_merge + int32(static_cast<std::int64_t>(t)), c - chunks.begin, part);
        } else {
          part.partial = node_place(tiles[t]);
        }
        parts_.push_back({0, part});
      }
    }
  }

  // Fast plans: a part for every run of tiles.

  void add_runs() {
    std::vector<RowTile> units;
    std::vector<std::int64_t> tiles;
    for (const DeviceItem& item : items_) {
      for (const RowTile& tile : row_tiles(item)) {
        units.push_back(tile);
        tiles.push_back(ceil_div(item.context_len, geometry_.tile_tokens));
      }
    }
    const std::vector<Run> runs = deal_runs(tiles, geometry_.teams, geometry_.costs);
    std::vector<std::int64_t> runs_of(units.size(), 0);
    for (const Run& run : runs) ++runs_of[run.unit];
    std::int32_t merge = -1;
    std::int64_t index = 0;
    for (const Run& run : runs) {
      const Range tokens{run.tiles.begin * geometry_.tile_tokens,
                         run.tiles.end * geometry_.tile_tokens};
      Part part = part_of(units[run.unit], tokens);
      if (runs_of[run.unit] > 1) {
        if (run.tiles.begin == 0) {
          merge = add_merge(units[run.unit], runs_of[run.unit], {});
          index = 0;
        }
        lead_to(merge, index++, part);
      }
      parts_.push_back({run.team, part});
    }
  }

  // Both.

  void link() {
    check_fits("parts", std::ssize(parts_) + geometry_.teams);
    plan_.parts.reserve(geometry_.teams + parts_.size());
    plan_.parts.resize(geometry_.teams);
    last_part_.assign(geometry_.teams, -1);
    for (const DealtPart& p : parts_) {
      std::int32_t& last = last_part_[p.team];
      if (last < 0) {
        last = p.team;
        plan_.parts[p.team] = p.part;
      } else {
        plan_.parts[last].next = int32(std::ssize(plan_.parts));
        last = plan_.parts[last].next;
        plan_.parts.push_back(p.part);
      }
    }
  }

  /// A merge is shared by the teams that have parts of it, and by those that have no work at all.
  void share_merges() {
    std::vector<std::vector<int>> teams_of(plan_.merges.size());
    for (const DealtPart& p : parts_) {
      if (p.part.merge < 0) continue;
      std::vector<int>& teams = teams_of[p.part.merge];
      if (teams.empty() || teams.back() != p.team) teams.push_back(p.team);
    }
    add_idle_teams(teams_of);
    std::vector<std::vector<MergeShare>> shares(geometry_.teams);
    for (std::size_t m = 0; m < teams_of.size(); ++m) {
      Merge& merge = plan_.merges[m];
      for (const int team : teams_of[m]) {
        shares[team].push_back({int32(static_cast<std::int64_t>(m)), merge.blocks});
        merge.blocks += geometry_.blocks_per_team;
      }
    }
    plan_.share_offsets.push_back(0);
    for (const std::vector<MergeShare>& of_team : shares) {
      plan_.shares.insert(plan_.shares.end(), of_team.begin(), of_team.end());
      plan_.share_offsets.push_back(int32(std::ssize(plan_.shares)));
    }
  }

  void add_idle_teams(std::vector<std::vector<int>>& teams_of) const {
    if (teams_of.empty() || plan_.merges_by_mail()) return;
    std::size_t merge = 0;
    for (int team = 0; team < geometry_.teams; ++team) {
      if (last_part_[team] >= 0) continue;
      const std::int64_t elements = plan_.merges[merge].rows * sizes_.d_v;
      const std::int64_t blocks = (std::ssize(teams_of[merge]) + 1) * geometry_.blocks_per_team;
      if (blocks * kElementsPerMergingBlock <= elements) teams_of[merge].push_back(team);
      merge = (merge + 1) % teams_of.size();
    }
  }

  std::span<const DeviceItem> items_;
  PlanSizes sizes_;
  KernelGeometry geometry_;
  DevicePlan plan_;
  std::vector<DealtPart> parts_;         // of each team in order
  std::vector<std::int32_t> last_part_;  // of each team, -1: it has none
};

}  // namespace

DevicePlan make_device_plan(std::span<const DeviceItem> items, const PlanSizes& sizes,
                            const KernelGeometry& geometry) {
  check(items, sizes);
  return PlanMaker(items, sizes, geometry).make();
}

}  // namespace mla::kernels::cuda
