#include <algorithm>
#include <span>
#include <unordered_set>

#include "core/chunk_tree.h"
#include "core/partition.h"

namespace mla {
namespace {

/// All chunks of a request but its last cost the same.
double compute_cost(const Batch& batch, const Piece& piece, const CostModel& cost) {
  const Request& request = batch.requests[piece.request];
  const std::int64_t heads = piece.heads.size();
  const double last = cost.chunk(batch, request, piece.chunks.end - 1, heads);
  if (piece.chunks.size() == 1) return last;
  const double each = cost.chunk(batch, request, piece.chunks.begin, heads);
  return each * static_cast<double>(piece.chunks.size() - 1) + last;
}

std::int64_t tokens_in(const Batch& batch, const Piece& piece) {
  const std::int64_t context_len = batch.requests[piece.request].context_len;
  return std::min(piece.chunks.end * batch.chunk_tokens, context_len) -
         piece.chunks.begin * batch.chunk_tokens;
}

std::int64_t kv_heads_of(const Batch& batch, const Piece& piece) {
  const std::int64_t group = batch.shape.heads_per_kv();
  return (piece.heads.end - 1) / group - piece.heads.begin / group + 1;
}

void add_work(const Batch& batch, const Partition& partition, int rank, const CostModel& cost,
              RankLoad& load) {
  const MlaShape& shape = batch.shape;
  std::unordered_set<int> destinations;
  for (const Piece& piece : partition.pieces_of(rank)) {
    const Request& request = batch.requests[piece.request];
    const std::int64_t rows = request.query_len * piece.heads.size();
    ++load.pieces;
    load.cost += compute_cost(batch, piece, cost);
    load.kv_rows += tokens_in(batch, piece) * kv_heads_of(batch, piece);
    load.q_bytes += rows * shape.d_qk * size_of(batch.dtype);
    const std::int64_t nodes = count_maximal_nodes(piece.chunks, batch.num_chunks(request));
    for (const Ownership& o : owners_of(partition, piece.request, piece.heads)) {
      if (o.owner == rank) continue;
      load.partials_sent += nodes;
      const std::int64_t bytes = nodes * request.query_len * o.heads.size() * (shape.d_v + 2) * 4;
      const bool far = cost.is_far(rank, o.owner);
      const bool first = destinations.insert(o.owner).second;
      load.bytes_sent += bytes;
      load.messages_sent += first ? 1 : 0;
      load.far_bytes_sent += far ? bytes : 0;
      load.far_messages_sent += far && first ? 1 : 0;
    }
  }
}

void add_pages(const Batch& batch, std::span<const Piece> pieces, RankLoad& load) {
  std::unordered_set<std::int32_t> pages;
  for (const Piece& piece : pieces) {
    const Request& request = batch.requests[piece.request];
    const Range blocks = blocks_of(batch, request, piece.chunks);
    if (request.block_table.empty()) {
      load.kv_pages += blocks.size();
    } else {
      pages.insert(request.block_table.begin() + blocks.begin,
                   request.block_table.begin() + blocks.end);
    }
  }
  load.kv_pages += static_cast<std::int64_t>(pages.size());
  load.kv_bytes = load.kv_pages * batch.page_elements() * size_of(batch.dtype);
}

double exchange_cost(const RankLoad& load, const CostModel& cost) {
  const std::int64_t near_bytes = load.bytes_sent - load.far_bytes_sent;
  const std::int64_t near_messages = load.messages_sent - load.far_messages_sent;
  return static_cast<double>(near_bytes) * cost.flop_per_wire_byte +
         static_cast<double>(near_messages) * cost.flop_per_message +
         static_cast<double>(load.far_bytes_sent) * cost.flop_per_far_byte +
         static_cast<double>(load.far_messages_sent) * cost.flop_per_far_message;
}

}  // namespace

RankLoad& RankLoad::operator+=(const RankLoad& other) {
  cost += other.cost;
  pieces += other.pieces;
  kv_rows += other.kv_rows;
  kv_pages += other.kv_pages;
  kv_bytes += other.kv_bytes;
  q_bytes += other.q_bytes;
  out_bytes += other.out_bytes;
  partials_sent += other.partials_sent;
  bytes_sent += other.bytes_sent;
  messages_sent += other.messages_sent;
  far_bytes_sent += other.far_bytes_sent;
  far_messages_sent += other.far_messages_sent;
  return *this;
}

std::vector<RankLoad> loads_of(const Batch& batch, const Partition& partition,
                               const CostModel& cost, CountPages count_pages) {
  std::vector<RankLoad> loads(partition.ranks());
  for (const Ownership& o : partition.ownerships) {
    const std::int64_t rows = batch.requests[o.request].query_len * o.heads.size();
    loads[o.owner].out_bytes += rows * (batch.shape.d_v * size_of(batch.out_dtype) + 4);
  }
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    add_work(batch, partition, rank, cost, loads[rank]);
    if (count_pages == CountPages::kYes) add_pages(batch, partition.pieces_of(rank), loads[rank]);
  }
  return loads;
}

PredictedCost predicted_cost(const Batch& batch, const std::vector<RankLoad>& loads,
                             const CostModel& cost) {
  const auto row_bytes = static_cast<double>(batch.shape.d_qk * size_of(batch.dtype));
  PredictedCost slowest;
  for (const RankLoad& load : loads) {
    const double loaded_bytes = static_cast<double>(load.kv_rows) * row_bytes;
    const PredictedCost rank{.load = loaded_bytes * cost.flop_per_loaded_byte,
                             .compute = load.cost,
                             .exchange = exchange_cost(load, cost)};
    if (rank.total() > slowest.total()) slowest = rank;
  }
  return slowest;
}

}  // namespace mla
