#include "kernels/projected_decode.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numbers>
#include <thread>

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
      sizes.call_rows = std::max(sizes.call_rows, std::min(rows, plan.rows_per_call()));
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

/// How far the attention of a tile is, whose calls any thread may take.
struct alignas(64) TileProgress {
  std::atomic<bool> absorbed = false;
  std::atomic<std::int64_t> taken = 0;  ///< calls; more than there are when nothing is left
  std::atomic<std::int64_t> done = 0;
};

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
  void run(const ProjectedTile& tile, Range next_heads, TileProgress& progress) const {
    absorb(tile);
    progress.absorbed.store(true, std::memory_order_release);
    attend(tile, memory_.rows, progress);
    const std::int64_t calls = num_calls(tile);
    while (progress.done.load(std::memory_order_acquire) < calls) std::this_thread::yield();
    project(tile, next_heads);
  }

  /// Takes calls of another thread's tile, whose rows are `rows`, if there are some to take.
  void help(const ProjectedTile& tile, std::uint16_t* rows, TileProgress& progress) const {
    if (progress.absorbed.load(std::memory_order_acquire)) attend(tile, rows, progress);
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

  std::int64_t calls_of(const ProjectedTile& tile, const ProjectedPart& part) const {
    return ceil_div(part.queries.size() * tile.heads.size(), plan_.rows_per_call());
  }

  std::int64_t num_calls(const ProjectedTile& tile) const {
    std::int64_t calls = 0;
    for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
      calls += calls_of(tile, plan_.parts[p]);
    }
    return calls;
  }

  /// Cached tokens that all calls read.
  std::int64_t num_tokens(const ProjectedTile& tile) const {
    std::int64_t tokens = 0;
    for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
      const ProjectedPart& part = plan_.parts[p];
      tokens += calls_of(tile, part) * batch_.requests[part.request].context_len;
    }
    return tokens;
  }

  /// What a call may prefetch of W_UV, which is read after the attention: the tile's last
  /// `tokens_after` tokens, which later calls read, take a row's length each from its begin.
  std::span<const std::byte> next_weights(const ProjectedTile& tile,
                                          std::int64_t tokens_after) const {
    const std::span w_uv = weights_.w_uv(tile.heads);
    const auto taken = static_cast<std::size_t>(tokens_after * d_qk() * size_of(batch_.dtype));
    return w_uv.subspan(std::min(w_uv.size(), taken));
  }

  /// Takes calls for as long as there are any.
  /// @param tile_rows [token][head][d_qk] absorbed queries, which o replaces
  void attend(const ProjectedTile& tile, std::uint16_t* tile_rows, TileProgress& progress) const {
    const std::int64_t heads = tile.heads.size();
    std::int64_t call = progress.taken.fetch_add(1, std::memory_order_relaxed);
    std::int64_t first_call = 0;
    std::int64_t part_row = 0;
    std::int64_t tokens_after = num_tokens(tile);
    for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
      const ProjectedPart& part = plan_.parts[p];
      const std::int64_t tokens = batch_.requests[part.request].context_len;
      tokens_after -= calls_of(tile, part) * tokens;
      const std::int64_t rows = part.queries.size() * heads;
      const std::int64_t end_call = first_call + calls_of(tile, part);
      while (call < end_call) {
        const std::int64_t row = (call - first_call) * plan_.rows_per_call();
        DecodeParams params = params_of(part, tile.heads, tile_rows + part_row * d_qk());
        params.rows = {row, std::min(rows, row + plan_.rows_per_call())};
        params.next = next_weights(tile, tokens_after + (end_call - 1 - call) * tokens);
        attend_rows(tile, params, tile_rows, part_row + row);
        progress.done.fetch_add(1, std::memory_order_release);
        call = progress.taken.fetch_add(1, std::memory_order_relaxed);
      }
      first_call = end_call;
      part_row += rows;
    }
  }

  /// Queries are counted from the part's first one; counted from the end, where causality looks,
  /// they stay where they are.
  DecodeParams params_of(const ProjectedPart& part, Range heads,
                         const std::uint16_t* part_rows) const {
    const Request& request = batch_.requests[part.request];
    return {.shape = batch_.shape,
            .chunk_tokens = batch_.chunk_tokens,
            .scale_log2 = static_cast<float>(batch_.softmax_scale * std::numbers::log2e),
            .kv = inputs_.kv,
            .block_table = inputs_.block_tables[part.request],
            .kv_head = heads.begin / batch_.shape.heads_per_kv(),
            .context_len = request.context_len,
            .q = part_rows,
            .q_token_stride = heads.size() * d_qk(),
            .q_head_stride = d_qk(),
            .query_len = request.query_len - part.queries.begin,
            .heads = heads.size(),
            .causal = batch_.causal};
  }

  void attend_rows(const ProjectedTile& tile, const DecodeParams& params, std::uint16_t* tile_rows,
                   std::int64_t first_row) const {
    const std::int64_t rows = params.rows.size();
    const PartialView root = partial_at(memory_.partial, rows, batch_.shape.d_v);
    if (params.context_len == 0) {
      clear_partial(root);
    } else {
      backend_.decode(params, {0, params.num_chunks()}, memory_.partial, memory_.decode);
    }
    // The backend has read these rows' queries for the last time.
    weights_.kernel().normalise(root, tile_rows + first_row * d_qk(), d_qk());
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
  return plan.threads() * bytes_per_thread(batch, largest_tile(batch, plan), weights, backend) +
         std::ssize(plan.tiles) * static_cast<std::int64_t>(sizeof(TileProgress));
}

void decode_projected(const Batch& batch, const ProjectedPlan& plan,
                      const PackedProjections& weights, const HostBackend& backend,
                      const ProjectedInputs& inputs, const ProjectedOutputs& outputs,
                      std::span<std::byte> workspace) noexcept {
  const TileSizes sizes = largest_tile(batch, plan);
  const std::int64_t bytes = bytes_per_thread(batch, sizes, weights, backend);
  const int threads = plan.threads();
  auto* const progress = reinterpret_cast<TileProgress*>(workspace.data() + threads * bytes);
  std::uninitialized_default_construct_n(progress, plan.tiles.size());
  const auto memory_of = [&](int thread) {
    WorkspaceCutter cut(workspace.data() + thread * bytes);
    return ThreadMemory(cut, batch, sizes, weights, backend);
  };
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < threads; ++thread) {
    const ThreadMemory memory = memory_of(thread);
    const TileRunner runner(batch, plan, weights, backend, inputs, outputs, memory);
    const std::int64_t end = plan.thread_offsets[thread + 1];
    for (std::int64_t i = plan.thread_offsets[thread]; i < end; ++i) {
      runner.run(plan.tiles[i], i + 1 < end ? plan.tiles[i + 1].heads : Range{}, progress[i]);
    }
    for (int step = 1; step < threads; ++step) {
      const int other = (thread + step) % threads;
      std::uint16_t* const rows = memory_of(other).rows;
      for (std::int64_t i = plan.thread_offsets[other]; i < plan.thread_offsets[other + 1]; ++i) {
        runner.help(plan.tiles[i], rows, progress[i]);
      }
    }
  }
}

}  // namespace mla::kernels
