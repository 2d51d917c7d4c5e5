#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/partition.h"

namespace mla::test {

/// What is wrong with a partition of `batch` over `ranks` ranks; empty if nothing is. Right means:
/// offsets that fit, every (request, head, chunk) in exactly one piece, one owner for every
/// (request, head), pieces whose heads are those of some ownerships, everything in its order.
inline std::string complaint_about(const Batch& batch, const Partition& partition, int ranks) {
  if (partition.mode.kind == ShardMode::Kind::kAuto) return "mode is auto";
  if (partition.ranks() != ranks) return "wrong number of ranks";
  const std::vector<std::int64_t>& offsets = partition.piece_offsets;
  if (offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      offsets.back() != static_cast<std::int64_t>(partition.pieces.size())) {
    return "bad piece offsets";
  }

  // (request, first head) -> the ownership and the chunks of its pieces.
  struct Slice {
    Ownership ownership;
    std::vector<Range> chunks;
  };
  std::map<std::pair<std::int64_t, std::int64_t>, Slice> slices;
  std::int64_t request = 0;
  std::int64_t head = 0;
  for (const Ownership& o : partition.ownerships) {
    if (o.owner < 0 || o.owner >= ranks) return "owner is no rank";
    if (o.request != request || o.heads.begin != head || o.heads.empty()) {
      return "ownerships do not follow each other";
    }
    head = o.heads.end;
    if (head == batch.shape.h_q) {
      head = 0;
      ++request;
    }
    slices[{o.request, o.heads.begin}] = {o, {}};
  }
  if (head != 0 || request != static_cast<std::int64_t>(batch.requests.size())) {
    return "heads without owner";
  }

  for (int rank = 0; rank < ranks; ++rank) {
    std::int64_t previous = -1;
    for (std::int64_t p = offsets[rank]; p < offsets[rank + 1]; ++p) {
      const Piece& piece = partition.pieces[p];
      if (piece.chunks.empty() || piece.heads.empty()) return "empty piece";
      if (piece.request <= previous) return "pieces of a rank are not in the order of requests";
      previous = piece.request;
      const auto owners = owners_of(partition, piece.request, piece.heads);
      if (owners.front().heads.begin != piece.heads.begin ||
          owners.back().heads.end != piece.heads.end) {
        return "piece's heads are no owners'";
      }
      for (const Ownership& o : owners) {
        slices.at({o.request, o.heads.begin}).chunks.push_back(piece.chunks);
      }
    }
  }
  for (auto& [key, slice] : slices) {
    std::sort(slice.chunks.begin(), slice.chunks.end(),
              [](Range a, Range b) { return a.begin < b.begin; });
    std::int64_t end = 0;
    for (const Range chunks : slice.chunks) {
      if (chunks.begin != end) return "chunk twice or not at all";
      end = chunks.end;
    }
    if (end != batch.num_chunks(batch.requests[key.first])) return "last chunks missing";
  }
  return "";
}

/// Every mode that `ranks` ranks can run, auto among them.
inline std::vector<ShardMode> all_modes(int ranks) {
  using Kind = ShardMode::Kind;
  std::vector<ShardMode> modes{{Kind::kAuto}, {Kind::kHeads}, {Kind::kKv}, {Kind::kBatch}};
  for (std::int64_t slices = 1; slices <= ranks; ++slices) {
    if (ranks % slices == 0) modes.push_back({Kind::kGrid, slices, ranks / slices});
  }
  return modes;
}

}  // namespace mla::test
