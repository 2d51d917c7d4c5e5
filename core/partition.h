#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/range.h"

namespace mla {

/// How the work of a batch is dealt out to ranks.
struct ShardMode {
  enum class Kind : std::uint8_t {
    kAuto,   ///< whichever is predicted fastest: core/auto_mode.h
    kHeads,  ///< each rank has some heads of every request; the cache is replicated
    kKv,     ///< each rank has one run of the chunks of all requests laid end to end
    kGrid,   ///< `head_slices` groups of heads, each of which cuts the chunks `kv_slices` times
    kBatch,  ///< whole requests, longest first to the least loaded rank
  };
  Kind kind = Kind::kAuto;
  std::int64_t head_slices = 1;  ///< of kGrid
  std::int64_t kv_slices = 1;    ///< of kGrid

  friend bool operator==(const ShardMode&, const ShardMode&) = default;
};

/// "auto", "heads", "kv", "batch" or "grid:HxK".
/// @throws InvalidArgument for anything else, and for a grid whose H*K is not `ranks`.
ShardMode parse_shard_mode(std::string_view text, int ranks);
std::string to_string(const ShardMode& mode);

/// Work of one rank on one request: all its query tokens, some heads, some chunks.
struct Piece {
  std::int64_t request = 0;
  Range heads;
  Range chunks;

  friend bool operator==(const Piece&, const Piece&) = default;
};

/// The rank that merges the partials of some heads of a request and writes their results. Every
/// request, one of length 0 too, has owners for all its heads: the rank that has most of its
/// chunks, and for a single query token those that have at least half as many, each for some heads.
struct Ownership {
  std::int64_t request = 0;
  Range heads;
  int owner = 0;

  friend bool operator==(const Ownership&, const Ownership&) = default;
};

/// Who does what. A pure function of the batch's sizes, so every rank computes the same one.
struct Partition {
  ShardMode mode;                           ///< never kAuto
  std::vector<std::int64_t> piece_offsets;  ///< [ranks + 1] into `pieces`
  std::vector<Piece> pieces;                ///< by rank, then by request
  std::vector<Ownership> ownerships;        ///< by request, then by heads

  int ranks() const { return static_cast<int>(piece_offsets.size()) - 1; }
  std::span<const Piece> pieces_of(int rank) const {
    return std::span(pieces).subspan(piece_offsets[rank],
                                     piece_offsets[rank + 1] - piece_offsets[rank]);
  }
};

/// Whether all ranks do the same in both, whatever the modes.
bool same_work(const Partition& a, const Partition& b);

/// Who owns results of `heads` of a request, by heads. The first and the last may own others, too.
std::span<const Ownership> owners_of(const Partition& partition, std::int64_t request, Range heads);

/// Deals the batch out to `ranks` ranks. With Kind::kKv and kGrid each cut between ranks is where
/// the largest subtree of the canonical tree begins that leaves no rank more than 2 % above an even
/// share, or, where chunks are too few for that, more than some rank must have in any cut. So most
/// requests lie on one or two ranks and few partials travel.
/// Local; needs no communication. The batch must be valid for planning.
Partition make_partition(const Batch& batch, ShardMode mode, int ranks, const CostModel& cost = {});

/// The same for some requests of the batch, given in ascending order. The others have no pieces and
/// no owners.
Partition make_partition(const Batch& batch, std::span<const std::int64_t> requests, ShardMode mode,
                         int ranks, const CostModel& cost = {});

/// What a partition means for one rank.
struct RankLoad {
  double cost = 0;            ///< predicted compute, FLOP-equivalents
  std::int64_t pieces = 0;    ///< (rank, request, heads) triples
  std::int64_t kv_rows = 0;   ///< cache rows that its pieces read, shared ones counted each time
  std::int64_t kv_pages = 0;  ///< distinct cache pages it reads
  std::int64_t kv_bytes = 0;  ///< of those pages
  std::int64_t q_bytes = 0;
  std::int64_t out_bytes = 0;       ///< results it owns, lse included
  std::int64_t partials_sent = 0;   ///< tree nodes on the wire, each of one head range of a request
  std::int64_t bytes_sent = 0;      ///< of those partials
  std::int64_t messages_sent = 0;   ///< ranks it sends to
  std::int64_t far_bytes_sent = 0;  ///< those of bytes_sent that leave the node
  std::int64_t far_messages_sent = 0;  ///< those of messages_sent

  /// What both partitions, of different requests, mean together.
  RankLoad& operator+=(const RankLoad& other);
};

/// Whether to look at block tables: the only part of the loads that takes time.
enum class CountPages : std::uint8_t { kNo, kYes };

/// One entry per rank. Where the batch has no block tables, every request counts pages of its own.
/// Without `count_pages`, kv_pages and kv_bytes stay 0.
std::vector<RankLoad> loads_of(const Batch& batch, const Partition& partition,
                               const CostModel& cost = {},
                               CountPages count_pages = CountPages::kYes);

/// What a rank spends its time on: FLOP-equivalents or, divided by their rate, seconds.
struct PredictedCost {
  double load = 0;  ///< reading or generating its cache
  double compute = 0;
  double exchange = 0;  ///< and merging

  double total() const { return load + compute + exchange; }
};

/// Predicted cost of the slowest rank.
PredictedCost predicted_cost(const Batch& batch, const std::vector<RankLoad>& loads,
                             const CostModel& cost = {});

}  // namespace mla
