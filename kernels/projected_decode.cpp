#include "kernels/projected_decode.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "kernels/projected_attention.h"
#include "kernels/workspace.h"

namespace mla::kernels {
namespace {

/// What a thread must hold for its largest tile.
struct TileSizes {
  std::int64_t rows = 0;           ///< tokens times heads
  std::int64_t call_rows = 0;      ///< of one call of the backend
  std::int64_t call_segments = 0;  ///< of one call
  std::int64_t context_len = 0;
};

TileSizes largest_tile(const Batch& batch, const ProjectedPlan& plan) {
  TileSizes sizes;
  for (const ProjectedTile& tile : plan.tiles) {
    sizes.rows = std::max(sizes.rows, tile.tokens.size() * tile.heads.size());
    for (std::int64_t p = tile.parts.begin; p < tile.parts.end; ++p) {
      const ProjectedPart& part = plan.parts[p];
      const Request& request = batch.requests[part.request];
      const std::int64_t rows = part.queries.size() * tile.heads.size();
      sizes.call_rows = std::max(sizes.call_rows, std::min(rows, kMaxRowsPerItem));
      sizes.call_segments =
          std::max(sizes.call_segments, halving_segments(batch.num_chunks(request)).count);
      sizes.context_len = std::max(sizes.context_len, request.context_len);
    }
  }
  return sizes;
}

/// Memory of one thread.
struct ThreadMemory {
  TileMemory tile;
  AttentionScratch attention;
  std::span<std::byte> project;

  ThreadMemory(WorkspaceCutter& cut, const Batch& batch, const TileSizes& sizes,
               const PackedProjections& weights, const HostBackend& backend) {
    const auto bytes = [&cut](std::int64_t count) {
      return std::span(cut.take<std::byte>(count), static_cast<std::size_t>(count));
    };
    const std::int64_t floats = partial_floats(sizes.call_rows, batch.shape.d_v);
    tile.rows = cut.take<std::uint16_t>(sizes.rows * batch.shape.d_qk);
    tile.segments = cut.take<float>(sizes.call_segments * floats);
    attention.partial = cut.take<float>(floats);
    attention.decode =
        bytes(backend.workspace_bytes(batch.shape, batch.chunk_tokens, sizes.context_len));
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
  TileRunner(const Batch& batch, const PackedProjections& weights, const ProjectedInputs& inputs,
             const ProjectedOutputs& outputs, const TileAttention& attention,
             const ThreadMemory& memory)
      : batch_(batch),
        weights_(weights),
        inputs_(inputs),
        outputs_(outputs),
        attention_(attention),
        memory_(memory) {}

  /// @param next_heads of the tile after it, whose W_UK is read next
  void run(const ProjectedTile& tile, Range next_heads, TileProgress& progress) const {
    absorb(tile);
    progress.absorbed.store(true, std::memory_order_release);
    attention_.work(tile, memory_.tile, progress, memory_.attention);
    const std::int64_t calls = attention_.num_calls(tile);
    while (progress.done.load(std::memory_order_acquire) < calls) std::this_thread::yield();
    project(tile, next_heads);
  }

  /// Takes tasks of another thread's tile, if there are some to take.
  void help(const ProjectedTile& tile, const TileMemory& owner, TileProgress& progress) const {
    if (!progress.absorbed.load(std::memory_order_acquire)) return;
    attention_.work(tile, owner, progress, memory_.attention);
  }

 private:
  std::int64_t d_qk() const { return batch_.shape.d_qk; }

  void absorb(const ProjectedTile& tile) const {
    for (std::int64_t head = tile.heads.begin; head < tile.heads.end; ++head) {
      absorb_head(weights_, inputs_.queries, head, tile.tokens,
                  memory_.tile.rows + (head - tile.heads.begin) * d_qk(),
                  tile.heads.size() * d_qk(), {}, memory_.project);
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
          {memory_.tile.rows + i * d_qk(), batch_.dtype, tile.heads.size() * d_qk(), d_qk()},
          {out + offset * size_of(batch_.out_dtype), batch_.out_dtype, token_stride, d_v_head},
          next.empty() ? std::span<const std::byte>{} : weights_.w_uk(next), memory_.project);
    }
  }

  const Batch& batch_;
  const PackedProjections& weights_;
  const ProjectedInputs& inputs_;
  const ProjectedOutputs& outputs_;
  const TileAttention& attention_;
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
  const TileAttention attention(batch, plan, weights, backend, inputs, outputs);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < threads; ++thread) {
    const ThreadMemory memory = memory_of(thread);
    const TileRunner runner(batch, weights, inputs, outputs, attention, memory);
    const std::int64_t end = plan.thread_offsets[thread + 1];
    for (std::int64_t i = plan.thread_offsets[thread]; i < end; ++i) {
      runner.run(plan.tiles[i], i + 1 < end ? plan.tiles[i + 1].heads : Range{}, progress[i]);
    }
    for (int step = 1; step < threads; ++step) {
      const int other = (thread + step) % threads;
      const TileMemory owner = memory_of(other).tile;
      for (std::int64_t i = plan.thread_offsets[other]; i < plan.thread_offsets[other + 1]; ++i) {
        runner.help(plan.tiles[i], owner, progress[i]);
      }
    }
  }
}

}  // namespace mla::kernels
