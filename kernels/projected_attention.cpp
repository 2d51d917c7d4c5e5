#include "kernels/projected_attention.h"

#include <algorithm>
#include <numbers>

namespace mla::kernels {
namespace {

/// Segment `done` is, too. Merges what can be merged now, siblings from level to level, a lone one
/// passing up; true if that was all. A subtree's partial is where its first segment's was.
template <class PartialOf>
bool climb(const CallSegments& segments, std::int64_t done, TileProgress& progress,
           PartialOf&& partial_of) {
  const auto end = segments.offsets.begin() + segments.count;
  const auto segment_from = [&](std::int64_t chunk) {
    return std::lower_bound(segments.offsets.begin(), end, chunk) - segments.offsets.begin();
  };
  std::int64_t begin = segments[done].begin;
  std::int64_t width = 1;
  while (width < segments[done].size()) width *= 2;
  for (; width < *end; width *= 2) {
    begin -= begin % (2 * width);
    if (begin + width >= *end) continue;
    const std::int64_t right = segment_from(begin + width);
    if (!progress.half_done[right].exchange(true, std::memory_order_acq_rel)) return false;
    merge_here(partial_of(segment_from(begin)), partial_of(right));
  }
  return true;
}

}  // namespace

/// Calls visit(Call), in order. The last of several is cut.
template <class Visit>
void TileAttention::for_each_call(const ProjectedTile& tile, Visit&& visit) const {
  std::int64_t part_row = 0;
  for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
    const ProjectedPart& part = plan_.parts[p];
    const std::int64_t chunks = batch_.num_chunks(batch_.requests[part.request]);
    const std::int64_t rows = part.queries.size() * tile.heads.size();
    for (std::int64_t row = 0; row < rows; row += kMaxRowsPerItem) {
      const Range call_rows{row, std::min(rows, row + kMaxRowsPerItem)};
      const bool first = part_row + row == 0;
      const bool last = p + 1 == tile.parts.end && call_rows.end == rows;
      const bool cut = last && !first && plan_.threads() > 1 && chunks > 1;
      visit(Call{part, call_rows, part_row, cut ? halving_segments(chunks) : whole_call(chunks)});
    }
    part_row += rows;
  }
}

std::int64_t TileAttention::num_calls(const ProjectedTile& tile) const {
  std::int64_t calls = 0;
  for_each_call(tile, [&](const Call&) { ++calls; });
  return calls;
}

void TileAttention::work(const ProjectedTile& tile, const TileMemory& owner, TileProgress& progress,
                         const AttentionScratch& scratch) const {
  const auto take = [&] { return progress.taken.fetch_add(1, std::memory_order_relaxed); };
  std::int64_t task = take();
  std::int64_t first_task = 0;
  std::int64_t tokens_left = num_tokens(tile);
  for_each_call(tile, [&](const Call& call) {
    DecodeParams params = params_of(call, tile.heads, owner.rows);
    const std::int64_t rows = params.rows.size();
    float* const partials = call.segments.count > 1 ? owner.segments : scratch.partial;
    const auto partial_of = [&](std::int64_t segment) {
      const std::int64_t floats = partial_floats(rows, batch_.shape.d_v);
      return partial_at(partials + segment * floats, rows, batch_.shape.d_v);
    };
    for (; task < first_task + call.segments.count; task = take()) {
      const std::int64_t segment = task - first_task;
      const PartialView partial = partial_of(segment);
      if (params.context_len == 0) {
        clear_partial(partial);
      } else {
        const Range chunks = call.segments[segment];
        const std::int64_t tokens = std::min(params.context_len, chunks.end * batch_.chunk_tokens);
        params.next = next_weights(tile, tokens_left - tokens);
        backend_.decode(params, chunks, partial.m_log2, scratch.decode);
      }
      if (!climb(call.segments, segment, progress, partial_of)) continue;
      finish(tile, call, partial_of(0), owner.rows);
      progress.done.fetch_add(1, std::memory_order_release);
    }
    first_task += call.segments.count;
    tokens_left -= params.context_len;
  });
}

/// Cached tokens that all calls read.
std::int64_t TileAttention::num_tokens(const ProjectedTile& tile) const {
  std::int64_t tokens = 0;
  for_each_call(
      tile, [&](const Call& call) { tokens += batch_.requests[call.part.request].context_len; });
  return tokens;
}

/// What is left to prefetch of W_UV, which is read next, when the tile's last `tokens_after` tokens
/// take a row's length each from its begin.
std::span<const std::byte> TileAttention::next_weights(const ProjectedTile& tile,
                                                       std::int64_t tokens_after) const {
  const std::span w_uv = weights_.w_uv(tile.heads);
  const auto taken =
      static_cast<std::size_t>(tokens_after * batch_.shape.d_qk * size_of(batch_.dtype));
  return w_uv.subspan(std::min(w_uv.size(), taken));
}

/// Queries are counted from the part's first one; counted from the end, where causality looks,
/// they stay where they are.
DecodeParams TileAttention::params_of(const Call& call, Range heads,
                                      const std::uint16_t* tile_rows) const {
  const Request& request = batch_.requests[call.part.request];
  const std::int64_t d_qk = batch_.shape.d_qk;
  return {.shape = batch_.shape,
          .chunk_tokens = batch_.chunk_tokens,
          .scale_log2 = static_cast<float>(batch_.softmax_scale * std::numbers::log2e),
          .kv = inputs_.kv,
          .block_table = inputs_.block_tables[call.part.request],
          .kv_head = heads.begin / batch_.shape.heads_per_kv(),
          .context_len = request.context_len,
          .q = tile_rows + call.part_row * d_qk,
          .q_token_stride = heads.size() * d_qk,
          .q_head_stride = d_qk,
          .query_len = request.query_len - call.part.queries.begin,
          .heads = heads.size(),
          .rows = call.rows,
          .causal = batch_.causal};
}

/// The backend has read these rows' queries for the last time: o takes their place.
void TileAttention::finish(const ProjectedTile& tile, const Call& call, const PartialView& root,
                           std::uint16_t* tile_rows) const {
  const std::int64_t d_qk = batch_.shape.d_qk;
  const std::int64_t heads = tile.heads.size();
  const std::int64_t first_row = call.part_row + call.rows.begin;
  weights_.kernel().normalise(root, tile_rows + first_row * d_qk, d_qk);
  for (std::int64_t i = 0; i < root.rows; ++i) {
    const std::int64_t token = tile.tokens.begin + (first_row + i) / heads;
    const std::int64_t head = tile.heads.begin + (first_row + i) % heads;
    outputs_.lse[token * batch_.shape.h_q + head] = finalize_lse(root, i);
  }
}

}  // namespace mla::kernels
