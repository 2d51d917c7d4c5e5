#include "kernels/projected_decode.h"

#include <algorithm>
#include <numbers>

#include "core/split_plan.h"
#include "kernels/workspace.h"

namespace mla::kernels {
namespace {

/// What a thread must hold for its largest tile.
struct TileSizes {
  std::int64_t rows = 0;       ///< tokens times heads
  std::int64_t call_rows = 0;  ///< of one call of the backend
  std::int64_t context_len = 0;
};

TileSizes largest_tile(const Batch& batch, const ProjectedPlan& plan) {
  TileSizes sizes;
  for (const ProjectedTile& tile : plan.tiles) {
    sizes.rows = std::max(sizes.rows, tile.tokens.size() * tile.heads.size());
    for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
      const ProjectedPart& part = plan.parts[p];
      const std::int64_t rows = part.queries.size() * tile.heads.size();
      sizes.call_rows = std::max(sizes.call_rows, std::min(rows, kMaxRowsPerItem));
      sizes.context_len = std::max(sizes.context_len, batch.requests[part.request].context_len);
    }
  }
  return sizes;
}

/// Memory of one thread.
struct ThreadMemory {
  std::uint16_t* rows;  ///< [token][head][d_qk] of a tile: absorbed queries, then o in their place
  float* partial;       ///< of the call at hand
  std::span<std::byte> decode;
  std::span<std::byte> project;

  ThreadMemory(WorkspaceCutter& cut, const Batch& batch, const TileSizes& sizes,
               const PackedProjections& weights, const HostBackend& backend) {
    const auto bytes = [&cut](std::int64_t count) {
      return std::span(cut.take<std::byte>(count), static_cast<std::size_t>(count));
    };
    rows = cut.take<std::uint16_t>(sizes.rows * batch.shape.d_qk);
    partial = cut.take<float>(partial_floats(sizes.call_rows, batch.shape.d_v));
    decode = bytes(backend.workspace_bytes(batch.shape, batch.chunk_tokens, sizes.context_len));
    project = bytes(projection_scratch_bytes(weights));
  }
};

std::int64_t bytes_per_thread(const Batch& batch, const TileSizes& sizes,
                              const PackedProjections& weights, const HostBackend& backend) {
  WorkspaceCutter cut(nullptr);
  const ThreadMemory memory(cut, batch, sizes, weights, backend);
  constexpr std::int64_t kPage = 4096;
  return round_up(cut.bytes(), kPage);
}

/// One thread at work.
class TileRunner {
 public:
  TileRunner(const Batch& batch, const ProjectedPlan& plan, const PackedProjections& weights,
             const HostBackend& backend, const ProjectedInputs& inputs,
             const ProjectedOutputs& outputs, const ThreadMemory& memory)
      : batch_(batch),
        plan_(plan),
        weights_(weights),
        backend_(backend),
        inputs_(inputs),
        outputs_(outputs),
        memory_(memory) {}

  /// @param next_heads of the tile after it, whose W_UK is read next
  void run(const ProjectedTile& tile, Range next_heads) const {
    absorb(tile);
    attend(tile);
    project(tile, next_heads);
  }

 private:
  std::int64_t d_qk() const { return batch_.shape.d_qk; }

  void absorb(const ProjectedTile& tile) const {
    for (std::int64_t head = tile.heads.begin; head < tile.heads.end; ++head) {
      absorb_head(weights_, inputs_.queries, head, tile.tokens,
                  memory_.rows + (head - tile.heads.begin) * d_qk(), tile.heads.size() * d_qk(), {},
                  memory_.project);
    }
  }

  /// A backend takes so many rows at a time.
  void attend(const ProjectedTile& tile) const {
    const std::int64_t heads = tile.heads.size();
    std::int64_t part_row = 0;
    for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
      const std::int64_t rows = plan_.parts[p].queries.size() * heads;
      for (std::int64_t row = 0; row < rows; row += kMaxRowsPerItem) {
        DecodeParams params = params_of(plan_.parts[p], tile.heads, part_row);
        params.rows = {row, std::min(rows, row + kMaxRowsPerItem)};
        attend_rows(tile, params, part_row + row);
      }
      part_row += rows;
    }
  }

  /// Queries are counted from the part's first one; counted from the end, where causality looks,
  /// they stay where they are.
  DecodeParams params_of(const ProjectedPart& part, Range heads, std::int64_t part_row) const {
    const Request& request = batch_.requests[part.request];
    return {.shape = batch_.shape,
            .chunk_tokens = batch_.chunk_tokens,
            .scale_log2 = static_cast<float>(batch_.softmax_scale * std::numbers::log2e),
            .kv = inputs_.kv,
            .block_table = inputs_.block_tables[part.request],
            .kv_head = heads.begin / batch_.shape.heads_per_kv(),
            .context_len = request.context_len,
            .q = memory_.rows + part_row * d_qk(),
            .q_token_stride = heads.size() * d_qk(),
            .q_head_stride = d_qk(),
            .query_len = request.query_len - part.queries.begin,
            .heads = heads.size(),
            .causal = batch_.causal};
  }

  void attend_rows(const ProjectedTile& tile, const DecodeParams& params,
                   std::int64_t first_row) const {
    const std::int64_t rows = params.rows.size();
    const PartialView root = partial_at(memory_.partial, rows, batch_.shape.d_v);
    if (params.context_len == 0) {
      clear_partial(root);
    } else {
      backend_.decode(params, {0, params.num_chunks()}, memory_.partial, memory_.decode);
    }
    // The backend has read these rows' queries for the last time.
    weights_.kernel().normalise(root, memory_.rows + first_row * d_qk(), d_qk());
    const std::int64_t heads = tile.heads.size();
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t token = tile.tokens.begin + (first_row + i) / heads;
      const std::int64_t head = tile.heads.begin + (first_row + i) % heads;
      outputs_.lse[token * batch_.shape.h_q + head] = finalize_lse(root, i);
    }
  }

  void project(const ProjectedTile& tile, Range next_heads) const {
    const std::int64_t d_v_head = weights_.d_v_head();
    const std::int64_t token_stride = batch_.shape.h_q * d_v_head;
    auto* const out = static_cast<std::byte*>(outputs_.out);
    for (std::int64_t i = 0; i < tile.heads.size(); ++i) {
      const std::int64_t head = tile.heads.begin + i;
      const std::int64_t offset = tile.tokens.begin * token_stride + head * d_v_head;
      const Range next{next_heads.begin + i, std::min(next_heads.end, next_heads.begin + i + 1)};
      project_head(
          weights_, head, tile.tokens.size(),
          {memory_.rows + i * d_qk(), batch_.dtype, tile.heads.size() * d_qk(), d_qk()},
          {out + offset * size_of(batch_.out_dtype), batch_.out_dtype, token_stride, d_v_head},
          next.empty() ? std::span<const std::byte>{} : weights_.w_uk(next), memory_.project);
    }
  }

  const Batch& batch_;
  const ProjectedPlan& plan_;
  const PackedProjections& weights_;
  const HostBackend& backend_;
  const ProjectedInputs& inputs_;
  const ProjectedOutputs& outputs_;
  const ThreadMemory& memory_;
};

}  // namespace

std::int64_t projected_workspace_bytes(const Batch& batch, const ProjectedPlan& plan,
                                       const PackedProjections& weights,
                                       const HostBackend& backend) {
  return plan.threads() * bytes_per_thread(batch, largest_tile(batch, plan), weights, backend);
}

void decode_projected(const Batch& batch, const ProjectedPlan& plan,
                      const PackedProjections& weights, const HostBackend& backend,
                      const ProjectedInputs& inputs, const ProjectedOutputs& outputs,
                      std::span<std::byte> workspace) noexcept {
  const TileSizes sizes = largest_tile(batch, plan);
  const std::int64_t bytes = bytes_per_thread(batch, sizes, weights, backend);
  const int threads = plan.threads();
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < threads; ++thread) {
    WorkspaceCutter cut(workspace.data() + thread * bytes);
    const ThreadMemory memory(cut, batch, sizes, weights, backend);
    const TileRunner runner(batch, plan, weights, backend, inputs, outputs, memory);
    const std::int64_t end = plan.thread_offsets[thread + 1];
    for (std::int64_t i = plan.thread_offsets[thread]; i < end; ++i) {
      runner.run(plan.tiles[i], i + 1 < end ? plan.tiles[i + 1].heads : Range{});
    }
  }
}

}  // namespace mla::kernels
