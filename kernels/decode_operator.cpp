#include "kernels/decode_operator.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <omp.h>

#include "core/error.h"
#include "core/strided_results.h"
#include "kernels/local_decode.h"

namespace mla::kernels {
namespace {

std::int64_t longest_table(const Batch& batch) {
  std::int64_t blocks = 0;
  for (const Request& request : batch.requests) {
    blocks = std::max(blocks, batch.num_blocks(request));
  }
  return blocks;
}

class HostOperator final : public DecodeOperator {
 public:
  HostOperator(const HostBackend& backend, const Batch& batch, const OperatorLayout& layout,
               int threads)
      : backend_(backend),
        batch_(batch),
        layout_(layout),
        pieces_(make_partition(batch_, {.kind = ShardMode::Kind::kBatch}, 1).pieces),
        plan_(make_split_plan(batch_, pieces_, threads)),
        query_offsets_(query_offsets(batch_)),
        results_(batch_) {
    inputs_.kv = {.data = nullptr,
                  .dtype = batch_.dtype,
                  .page_block_size = batch_.page_block_size,
                  .page_stride = layout_.kv_page_stride,
                  .token_stride = layout_.kv_token_stride,
                  .head_stride = layout_.kv_head_stride};
    inputs_.pieces.assign(pieces_.size(), {.q_token_stride = layout_.q_token_stride,
                                           .q_head_stride = layout_.q_head_stride});
  }

  OperatorMemory memory() const override {
    return {.host_bytes = workspace_size(batch_, plan_, backend_).bytes(), .device_bytes = 0};
  }

  void bind(std::byte* host, std::byte* /*device*/, OperatorStream /*stream*/) override {
    decoder_.emplace(batch_, plan_, backend_,
                     std::span(host, static_cast<std::size_t>(memory().host_bytes)));
  }

  void run(const OperatorTensors& tensors, OperatorStream /*stream*/) override {
    check_pages(tensors);
    inputs_.kv.data = tensors.kv;
    for (std::size_t p = 0; p < pieces_.size(); ++p) {
      const std::int64_t request = pieces_[p].request;
      inputs_.pieces[p].block_table = tensors.block_tables + request * layout_.block_table_stride;
      inputs_.pieces[p].q = tensors.q + query_offsets_[request] * layout_.q_token_stride;
    }
    results_.write_to({static_cast<std::byte*>(tensors.out), layout_.out_token_stride,
                       layout_.out_head_stride, tensors.lse, layout_.lse_token_stride,
                       layout_.lse_head_stride});
    decoder_->run(inputs_, results_);
  }

 private:
  void check_pages(const OperatorTensors& tensors) const {
    for (const Piece& piece : pieces_) {
      const std::int64_t blocks = batch_.num_blocks(batch_.requests[piece.request]);
      const std::int32_t* const table =
          tensors.block_tables + piece.request * layout_.block_table_stride;
      for (std::int64_t b = 0; b < blocks; ++b) {
        if (table[b] >= 0 && table[b] < tensors.num_pages) continue;
        throw InvalidArgument(
            "block_tables[" + std::to_string(piece.request) + "][" + std::to_string(b) + "]",
            std::to_string(table[b]),
            "at least 0 and below num_pages, " + std::to_string(tensors.num_pages));
      }
    }
  }

  const HostBackend& backend_;
  Batch batch_;
  OperatorLayout layout_;
  std::vector<Piece> pieces_;
  SplitPlan plan_;
  std::vector<std::int64_t> query_offsets_;
  StridedResults results_;
  RankInputs inputs_;
  std::optional<LocalDecoder> decoder_;
};

}  // namespace

OperatorLayout contiguous_layout(const Batch& batch) {
  const MlaShape& shape = batch.shape;
  return {.q_token_stride = shape.h_q * shape.d_qk,
          .q_head_stride = shape.d_qk,
          .kv_page_stride = batch.page_elements(),
          .kv_token_stride = shape.h_kv * shape.d_qk,
          .kv_head_stride = shape.d_qk,
          .block_table_stride = longest_table(batch),
          .out_token_stride = shape.h_q * shape.d_v,
          .out_head_stride = shape.d_v,
          .lse_token_stride = shape.h_q,
          .lse_head_stride = 1};
}

std::unique_ptr<DecodeOperator> HostBackend::make_operator(const Batch& batch,
                                                           const OperatorLayout& layout,
                                                           const OperatorOptions& options) const {
  const int threads = options.threads > 0 ? options.threads : omp_get_max_threads();
  return std::make_unique<HostOperator>(*this, batch, layout, threads);
}

}  // namespace mla::kernels
