#include "kernels/local_decode.h"

#include <algorithm>
#include <numbers>
#include <optional>
#include <thread>
#include <utility>

#include <omp.h>

#include "core/chunk_tree.h"
#include "core/error.h"

namespace mla::kernels {

DecodeParams decode_params(const Batch& batch, const WorkItem& item, const RankInputs& inputs) {
  const Request& request = batch.requests[item.request];
  const PieceInputs& piece = inputs.pieces[item.piece];
  return {.shape = batch.shape,
          .chunk_tokens = batch.chunk_tokens,
          .scale_log2 = static_cast<float>(batch.softmax_scale * std::numbers::log2e),
          .kv = inputs.kv,
          .block_table = piece.block_table,
          .kv_head = item.kv_head,
          .context_len = request.context_len,
          .q = piece.q + (item.heads.begin - piece.first_head) * piece.q_head_stride,
          .q_token_stride = piece.q_token_stride,
          .q_head_stride = piece.q_head_stride,
          .query_len = request.query_len,
          .heads = item.heads.size(),
          .rows = item.rows,
          .causal = batch.causal};
}

namespace {

/// A run that begins with one segment of a plan and goes on through those that follow it in the
/// same share, until another thread has taken one of them.
class SegmentRun final : public ChunkSupply {
 public:
  SegmentRun(const SplitPlan& plan, SegmentQueue& queue, std::int64_t first, float* other_nodes)
      : plan_(plan),
        queue_(queue),
        other_nodes_(other_nodes),
        segments_{first, first + 1},
        limit_(first + 1) {
    const std::vector<std::int64_t>& shares = plan.thread_offsets;
    const auto share_end = std::upper_bound(shares.begin(), shares.end(), first);
    owner_ = static_cast<int>(share_end - shares.begin()) - 1;
    while (limit_ < *share_end && follows(plan.segments[limit_ - 1], plan.segments[limit_])) {
      ++limit_;
    }
  }

  std::int64_t extend(std::int64_t end) noexcept override {
    if (segments_.end == limit_ || !queue_.take_next(owner_, segments_.end)) return end;
    return plan_.segments[segments_.end++].chunks.end;
  }
  std::int64_t furthest() const noexcept override { return plan_.segments[limit_ - 1].chunks.end; }
  float* other_nodes() const noexcept override { return other_nodes_; }

  bool may_grow() const { return limit_ > segments_.end; }
  Range segments() const { return segments_; }
  Range chunks() const {
    return {plan_.segments[segments_.begin].chunks.begin,
            plan_.segments[segments_.end - 1].chunks.end};
  }

 private:
  const SplitPlan& plan_;
  SegmentQueue& queue_;
  float* other_nodes_;
  int owner_ = 0;  // of the share
  Range segments_;
  std::int64_t limit_;  // of the segments that it may go on with
};

}  // namespace

WorkspaceSize workspace_size(const Batch& batch, const SplitPlan& plan,
                             const HostBackend& backend) {
  std::int64_t longest = 0;
  std::int64_t most_rows = 0;
  for (const WorkItem& item : plan.items) {
    longest = std::max(longest, batch.requests[item.request].context_len);
    most_rows = std::max(most_rows, item.rows.size());
  }
  const bool runs_grow = plan.float_offsets.back() > 0;
  const std::int64_t partials =
      runs_grow ? max_fold_depth(ceil_div(longest, batch.chunk_tokens)) : 1;
  return {.fold_floats = thread_fold_floats(batch, plan),
          .floats_per_thread = partials * partial_floats(most_rows, batch.shape.d_v),
          .scratch_per_thread = backend.workspace_bytes(batch.shape, batch.chunk_tokens, longest),
          .threads = plan.threads()};
}

LocalDecoder::LocalDecoder(const Batch& batch, const SplitPlan& plan, const HostBackend& backend,
                           std::span<std::byte> memory)
    : batch_(batch),
      plan_(plan),
      backend_(backend),
      size_(workspace_size(batch, plan, backend)),
      owned_(memory.empty() ? size_.bytes() : 0),
      memory_(memory.empty() ? owned_.data() : memory.data()),
      queue_(plan),
      fold_(batch, plan,
            reinterpret_cast<float*>(memory_ + size_.threads * size_.bytes_per_thread())) {}

std::byte* LocalDecoder::memory_of(int thread) {
  return memory_ + thread * size_.bytes_per_thread();
}

const std::vector<OpenItem>& LocalDecoder::run(const RankInputs& inputs, ResultSink& results,
                                               std::atomic<std::int64_t>* chunks_done) {
  const int threads = plan_.threads();
  queue_.reset();
  fold_.reset();
#pragma omp parallel num_threads(threads)
  {
    // Loops rather than thread numbers: the runtime may grant fewer threads than were asked for.
#pragma omp for schedule(static, 1) nowait
    for (int thread = 0; thread < threads; ++thread) {
      for (std::int64_t s = queue_.next(thread); s >= 0; s = queue_.next(thread)) {
        run_from(s, inputs, results, chunks_done, thread);
      }
    }
    // Segments that others still compute take less long than it takes to fall asleep.
    while (!fold_.fold_ready(omp_get_thread_num(), results)) std::this_thread::yield();
  }
  return fold_.open_items();
}

void LocalDecoder::run_from(std::int64_t segment, const RankInputs& inputs, ResultSink& results,
                            std::atomic<std::int64_t>* chunks_done, int thread) {
  const Segment& s = plan_.segments[segment];
  WorkItem item = plan_.items[s.item];
  const bool is_first_slice = s.rows.begin == item.rows.begin;
  item.rows = s.rows;
  DecodeParams params = decode_params(batch_, item, inputs);
  if (is_first_slice) params.chunks_done = chunks_done;

  const std::int64_t floats = partial_floats(s.rows.size(), batch_.shape.d_v);
  auto* const own = reinterpret_cast<float*>(memory_of(thread));
  SegmentRun run(plan_, queue_, segment, own + floats);
  if (run.may_grow()) params.more = &run;
  // What may come to cover the whole request is hardly ever kept.
  const Range whole{0, params.num_chunks()};
  const bool may_be_whole = Range{s.chunks.begin, run.furthest()} == whole;
  float* const nodes = may_be_whole ? own : fold_.nodes_of(segment);
  const std::span scratch(memory_of(thread) + size_.floats_per_thread * 4,
                          static_cast<std::size_t>(size_.scratch_per_thread));
  backend_.decode(params, s.chunks, nodes, scratch);
  if (run.chunks() == whole) {
    results.finish(item, partial_at(nodes, s.rows.size(), batch_.shape.d_v));
    fold_.drop(run.segments());
  } else {
    float* const others = params.more == nullptr ? nodes + floats : run.other_nodes();
    fold_.keep(run.segments(), nodes, others);
  }
}

namespace {

class HostDecoder final : public NodeDecoder {
 public:
  HostDecoder(const Batch& batch, std::span<const Piece> pieces, const RankInputs& inputs,
              const HostBackend& backend, int threads)
      : batch_(batch), backend_(backend), threads_(threads) {
    replan(pieces, inputs);
  }

  void replan(std::span<const Piece> pieces, const RankInputs& inputs) override {
    plan_ = make_split_plan(batch_, pieces, threads_);
    inputs_ = &inputs;
    const auto bytes = static_cast<std::size_t>(workspace_size(batch_, plan_, backend_).bytes());
    if (memory_.size() < bytes) {
      // What grew once may grow again.
      const std::size_t spare = memory_.size() / 4;
      memory_ = {};
      memory_ = AlignedBuffer<std::byte>(bytes + spare);
    }
    decoder_.emplace(batch_, plan_, backend_, memory_.span());
  }

  std::span<const WorkItem> items() const override { return plan_.items; }

  const std::vector<OpenItem>& run(ResultBuilder& results,
                                   std::atomic<std::int64_t>* chunks_done) override {
    return decoder_->run(*inputs_, results, chunks_done);
  }

 private:
  const Batch& batch_;
  const HostBackend& backend_;
  int threads_;
  SplitPlan plan_;
  const RankInputs* inputs_ = nullptr;
  AlignedBuffer<std::byte> memory_;
  std::optional<LocalDecoder> decoder_;
};

}  // namespace

std::unique_ptr<NodeDecoder> HostBackend::make_decoder(const Batch& batch,
                                                       std::span<const Piece> pieces,
                                                       const RankInputs& inputs,
                                                       const DecoderOptions& options) const {
  return std::make_unique<HostDecoder>(batch, pieces, inputs, *this, options.threads);
}

}  // namespace mla::kernels
