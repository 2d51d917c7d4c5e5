#include "dist/work_groups.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/split_plan.h"
#include "dist/route.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kMinChunksPerThread = 16;  // of shared pieces, and of own ones
constexpr std::int64_t kChunksPerThread = 64;     // of a group, where there is so much
constexpr std::int64_t kMostOwnGroups = 8;

std::int64_t chunks_in(const Batch& batch, std::span<const Piece> pieces) {
  std::int64_t chunks = 0;
  for (const WorkItem& item : work_items(batch, pieces)) chunks += item.chunks.size();
  return chunks;
}

/// How many groups to cut own pieces into; 0: none of their own.
std::int64_t count_own_groups(std::int64_t shared_chunks, std::int64_t own_chunks, int threads) {
  if (own_chunks == 0) return 0;
  const bool waits = threads > 1;  // at the end of each group
  const std::int64_t enough = kMinChunksPerThread * threads;
  if (waits && (own_chunks < enough || (shared_chunks > 0 && shared_chunks < enough))) return 0;
  return std::clamp<std::int64_t>(own_chunks / (kChunksPerThread * threads), 1, kMostOwnGroups);
}

}  // namespace

std::vector<WorkGroup> ungrouped_work(const Partition& partition, int rank,
                                      const kernels::RankInputs& inputs) {
  const auto pieces = partition.pieces_of(rank);
  WorkGroup all{.pieces = {pieces.begin(), pieces.end()}, .inputs = inputs, .owned = {}};
  for (const Ownership& o : partition.ownerships) {
    if (o.owner == rank) all.owned.push_back(o);
  }
  return {std::move(all)};
}

std::vector<WorkGroup> group_work(const Batch& batch, const Partition& partition, int rank,
                                  const kernels::RankInputs& inputs, int threads) {
  std::vector<WorkGroup> ungrouped = ungrouped_work(partition, rank, inputs);
  const WorkGroup& all = ungrouped.front();
  std::vector<Piece> shared;
  std::vector<Piece> own;
  for (const Piece& piece : all.pieces) (is_shared(batch, piece) ? shared : own).push_back(piece);
  const std::int64_t own_chunks = chunks_in(batch, own);
  const std::int64_t own_groups = count_own_groups(chunks_in(batch, shared), own_chunks, threads);
  if (own_groups == 0) return ungrouped;

  std::vector<WorkGroup> groups(own_groups + 1);
  for (WorkGroup& group : groups) group.inputs.kv = inputs.kv;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> group_of;  // request, first head
  std::int64_t chunks_before = 0;
  for (std::size_t p = 0; p < all.pieces.size(); ++p) {
    const Piece& piece = all.pieces[p];
    std::int64_t group = 0;
    if (!is_shared(batch, piece)) {
      group = 1 + chunks_before * own_groups / own_chunks;
      chunks_before += chunks_in(batch, {&piece, 1});
    }
    groups[group].pieces.push_back(piece);
    groups[group].inputs.pieces.push_back(inputs.pieces[p]);
    group_of[{piece.request, piece.heads.begin}] = group;
  }
  for (const Ownership& o : all.owned) {
    const auto place = group_of.find({o.request, o.heads.begin});
    groups[place == group_of.end() ? 0 : place->second].owned.push_back(o);
  }
  return groups;
}

}  // namespace mla::dist
