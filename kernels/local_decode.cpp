#include "kernels/local_decode.h"

#include <algorithm>
#include <numbers>

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

WorkspaceSize workspace_size(const Batch& batch, const SplitPlan& plan, const Backend& backend) {
  std::int64_t longest = 0;
  std::int64_t most_rows = 0;
  for (const WorkItem& item : plan.items) {
    longest = std::max(longest, batch.requests[item.request].context_len);
    most_rows = std::max(most_rows, item.rows.size());
  }
  constexpr std::int64_t kLine = 64;
  return {.plan_floats = plan.float_offsets.back(),
          .floats_per_thread = partial_floats(most_rows, batch.shape.d_v),
          .scratch_per_thread =
              round_up(backend.workspace_bytes(batch.shape, batch.chunk_tokens, longest), kLine),
          .threads = plan.threads()};
}

LocalDecoder::LocalDecoder(const Batch& batch, const SplitPlan& plan, const Backend& backend)
    : batch_(batch),
      plan_(plan),
      backend_(backend),
      size_(workspace_size(batch, plan, backend)),
      floats_(size_.floats()),
      scratch_(size_.scratch()) {}

float* LocalDecoder::thread_floats(int thread) {
  return floats_.data() + size_.plan_floats + thread * size_.floats_per_thread;
}

std::span<std::byte> LocalDecoder::thread_scratch(int thread) {
  return scratch_.span().subspan(thread * size_.scratch_per_thread, size_.scratch_per_thread);
}

std::vector<OpenItem> LocalDecoder::run(const RankInputs& inputs, ResultBuilder& results,
                                        std::atomic<std::int64_t>* chunks_done) {
  const int threads = plan_.threads();
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < threads; ++thread) {
    for (std::int64_t s = plan_.thread_offsets[thread]; s < plan_.thread_offsets[thread + 1]; ++s) {
      run_segment(s, inputs, results, chunks_done, thread);
    }
  }

  std::vector<OpenItem> open;
  for (std::size_t i = 0; i < plan_.items.size(); ++i) {
    std::vector<NodePartial> nodes = nodes_of(static_cast<std::int64_t>(i));
    if (!nodes.empty()) open.push_back({static_cast<std::int64_t>(i), std::move(nodes)});
  }
  const auto num_open = static_cast<std::int64_t>(open.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < num_open; ++i) {
    const WorkItem& item = plan_.items[open[i].item];
    const std::int64_t num_chunks = batch_.num_chunks(batch_.requests[item.request]);
    fold_partials(open[i].nodes, num_chunks);
    if (is_root(open[i].nodes, num_chunks)) {
      results.finish(item, open[i].nodes[0].partial);
      open[i].nodes.clear();
    }
  }
  std::erase_if(open, [](const OpenItem& o) { return o.nodes.empty(); });
  return open;
}

void LocalDecoder::run_segment(std::int64_t segment, const RankInputs& inputs,
                               ResultBuilder& results, std::atomic<std::int64_t>* chunks_done,
                               int thread) {
  const Segment& s = plan_.segments[segment];
  const WorkItem& item = plan_.items[s.item];
  DecodeParams params = decode_params(batch_, item, inputs);
  params.chunks_done = chunks_done;
  const bool whole_request = plan_.float_offsets[segment] == plan_.float_offsets[segment + 1];
  float* const nodes =
      whole_request ? thread_floats(thread) : floats_.data() + plan_.float_offsets[segment];
  backend_.decode(params, s.chunks, nodes, thread_scratch(thread));
  if (whole_request) {
    results.finish(item, partial_at(nodes, item.rows.size(), batch_.shape.d_v));
  }
}

std::vector<NodePartial> LocalDecoder::nodes_of(std::int64_t item) {
  const WorkItem& work = plan_.items[item];
  const std::int64_t num_chunks = batch_.num_chunks(batch_.requests[work.request]);
  const std::int64_t rows = work.rows.size();
  std::vector<NodePartial> nodes;
  for (std::int64_t s = plan_.item_offsets[item]; s < plan_.item_offsets[item + 1]; ++s) {
    if (plan_.float_offsets[s] == plan_.float_offsets[s + 1]) continue;
    float* data = floats_.data() + plan_.float_offsets[s];
    for (const TreeNode node : maximal_nodes(plan_.segments[s].chunks, num_chunks)) {
      nodes.push_back({node, partial_at(data, rows, batch_.shape.d_v)});
      data += partial_floats(rows, batch_.shape.d_v);
    }
  }
  return nodes;
}

}  // namespace mla::kernels
