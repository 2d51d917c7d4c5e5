#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/range.h"
#include "kernels/cuda/deal.h"

namespace mla::kernels::cuda {

/// How the blocks of a GPU kernel share the work. A team is what works on one part at a time: a
/// block, or a cluster of blocks.
struct KernelGeometry {
  int teams = 1;                    ///< that run at the same time
  int blocks_per_team = 1;          ///< consecutive blocks
  std::int64_t rows_per_part = 64;  ///< most query rows of a part
  std::int64_t tile_tokens = 64;    ///< keys of a kernel's step: parts are cut at multiples of it
  DealCosts costs;
  /// Fast plans merge by mail (sm90/m16_mailbox.cuh): the most slices that a block's share of a
  /// merge is cut into, a power of two. 0: partials are rows, and counters tell that they are
  /// there.
  std::int64_t mail_slices = 0;

  friend bool operator==(const KernelGeometry&, const KernelGeometry&) = default;
};

/// Some query rows of one request that read one KV head, and the keys to compute: what a plan is
/// made for. Offsets say where things lie behind the base pointers of `DecodeArgs`. Rows are
/// numbered query-major: row = j * heads + (head - first head).
struct DeviceItem {
  std::int64_t q = 0;            ///< elements: query 0, first head
  std::int64_t out = 0;          ///< elements: query 0, first head
  std::int64_t lse = 0;          ///< floats: query 0, first head
  std::int64_t block_table = 0;  ///< entries: block 0
  std::int64_t kv_head = 0;
  std::int64_t heads = 0;      ///< of the group that reads `kv_head`
  std::int64_t query_len = 1;  ///< s_q
  std::int64_t context_len = 0;
  Range rows;    ///< of query_len * heads
  Range chunks;  ///< to compute; all of them unless the request is cut over ranks

  friend bool operator==(const DeviceItem&, const DeviceItem&) = default;
};

/// A partial in the plan's buffer of floats: m at `offset`, then l, then o, as `partial_at` lays
/// out `rows` rows; a part fills those from `row_begin` on. By mail it is a `Mailbox`.
struct PartialPlace {
  std::int64_t offset = -1;  ///< -1: none, the result is final
  std::int32_t rows = 0;
  std::int32_t row_begin = 0;
};

/// One step of a team: some rows times a run of keys. Self-contained, so that a kernel finds all it
/// needs with one read. Plain data, read on the device.
struct alignas(16) Part {
  std::int64_t q = 0;  ///< as in DeviceItem
  std::int64_t out = 0;
  std::int64_t lse = 0;
  std::int64_t block_table = 0;
  PartialPlace partial;  ///< where to leave the partial; none: these are all keys, finish the rows
  std::int32_t kv_head = 0;
  std::int32_t heads = 0;
  std::int32_t query_len = 1;
  std::int32_t context_len = 0;
  std::int32_t row_begin = 0;
  std::int32_t rows = 0;  ///< at most KernelGeometry::rows_per_part; 0: nothing to do
  std::int32_t token_begin = 0;
  std::int32_t token_end = 0;  ///< may be token_begin: the rows see no key
  std::int32_t merge = -1;     ///< whose counter to raise once the partial is written, -1: none
  std::int32_t next = -1;      ///< the team's next part, -1: none. Team t's first part is part t
  std::int32_t slices = 0;     ///< of the merge
  std::int32_t padding[1] = {};
};
static_assert(sizeof(Part) == 96);

/// Some rows whose parts must be merged: `count` partials that lie `stride` floats apart from
/// `first.offset` on, in the order of their keys. Plain data, read on the device.
struct alignas(16) Merge {
  std::int64_t out = 0;  ///< as in DeviceItem
  std::int64_t lse = 0;
  PartialPlace first;
  PartialPlace node;  ///< where to leave the merged partial; none: the rows' results are final
  std::int64_t stride = 0;
  std::int32_t heads = 0;
  std::int32_t row_begin = 0;
  std::int32_t rows = 0;
  std::int32_t count = 0;
  std::int32_t blocks = 0;  ///< that share the merging, each an even part of rows * d_v
  std::int32_t slices = 0;  ///< by mail: of teams that share the merging, a power of two
};
static_assert(sizeof(Merge) == 80);

/// That a team takes part in a merge, as its blocks `first_block` and following. Other teams
/// compute some of the parts, so it has to wait until every block has arrived at the merge's
/// counter once for each part of its team: count * blocks_per_team arrivals. By mail there is
/// nothing to count, and team first_block / blocks_per_team merges the slice of that number, if
/// there are so many.
struct MergeShare {
  std::int32_t merge = 0;
  std::int32_t first_block = 0;
};

/// How a batch is computed on a GPU. A pure function of sizes; reusable as long as they stay.
///
///   exact: a part is one canonical chunk, and a merge follows the canonical tree: the bits depend
///          on nothing but the chunks.
///   fast:  a part is as long a run of keys as one team has of an item; merges take the weighted
///          sum. Reproducible for a fixed plan.
///
///   4 teams, fast, items a (50 tiles), b (20), c (50):
///     team 0   31 of a             merge a: teams 0, 1
///     team 1   19 of a, 10 of b    merge b: teams 1, 2
///     team 2   10 of b, 19 of c    merge c: teams 2, 3
///     team 3   31 of c
struct DevicePlan {
  KernelGeometry geometry;
  bool exact = true;
  std::vector<Part> parts;  ///< [>= teams]
  std::vector<Merge> merges;
  std::vector<MergeShare> shares;           ///< by team
  std::vector<std::int32_t> share_offsets;  ///< [teams + 1] into `shares`
  /// [items + 1] into the buffer of partials, which begins with them: an item whose chunks are not
  /// all of its request's leaves the maximal nodes of its range there, left to right, each of
  /// `partial_floats(item.rows.size(), d_v)` floats. Others have none.
  std::vector<std::int64_t> node_offsets;
  std::int64_t partial_floats = 0;  ///< of the whole buffer
  /// gcd(chunk_tokens, tile_tokens) if exact, else tile_tokens: every part begins at a multiple.
  std::int32_t part_alignment = 64;

  bool merges_by_mail() const { return !exact && geometry.mail_slices > 0; }
  /// Words: two for each merge, or by mail one for each block.
  std::int64_t counters() const {
    return merges_by_mail() ? std::int64_t{geometry.teams} * geometry.blocks_per_team
                            : 2 * std::ssize(merges);
  }
};

/// What `make_device_plan` must know of the operator.
struct PlanSizes {
  std::int64_t d_v = 0;
  std::int64_t chunk_tokens = 0;
  bool exact = true;
};

/// Deals the work to teams so that the busiest has little to do, by kernels/cuda/deal.h. Items
/// whose chunks are not all of their request's need `exact`. Teams without any part may share
/// merges. A row that sees no key is computed like others: its partial is empty. Items of requests
/// without keys have parts without tokens, which write their rows; items that have no chunk of a
/// longer request have no parts.
/// @throws InvalidArgument naming the field of an item that exceeds 2^31 - 1, or the chunks of one
///         that needs an exact plan.
DevicePlan make_device_plan(std::span<const DeviceItem> items, const PlanSizes& sizes,
                            const KernelGeometry& geometry);

}  // namespace mla::kernels::cuda
