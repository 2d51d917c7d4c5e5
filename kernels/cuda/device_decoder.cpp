#include "kernels/cuda/device_decoder.h"

#include <array>

#include "core/chunk_tree.h"
#include "core/growing_plan.h"
#include "kernels/cuda/batch_args.h"
#include "kernels/cuda/device_launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/shard_upload.h"

namespace mla::kernels::cuda {
namespace {

/// Some items, and how they are computed.
struct Launch {
  std::vector<std::int64_t> items;  ///< of the decoder's
  DeviceLaunch launch;
};

class DeviceDecoder final : public NodeDecoder {
 public:
  DeviceDecoder(std::string_view backend, const KernelList& kernels, const Batch& batch,
                std::span<const Piece> pieces, const RankInputs& inputs,
                const DecoderOptions& options)
      : backend_(backend),
        kernels_(kernels),
        batch_(batch),
        options_(options),
        pieces_(pieces.begin(), pieces.end()),
        shard_(batch, pieces, inputs, stream_) {
    const std::int64_t rows = shard_.tokens() * shard_.heads();
    out_ = PinnedBuffer(rows * out_row_bytes());
    lse_ = PinnedBuffer(rows * std::int64_t{sizeof(float)});
    args_ = tensors(inputs);
    replan(pieces, inputs);
    stream_.synchronise();  // the inputs have been copied
  }

  /// Of `inputs`, the tensors are on the GPU already.
  void replan(std::span<const Piece> pieces, const RankInputs& /*inputs*/) override {
    stream_.synchronise();  // the tables of the plan before have been copied
    items_ = work_items(batch_, pieces);
    uploaded_ = places_in(pieces_, pieces);
    // Partials that other ranks merge are those of the canonical tree in any case.
    for (Launch& launch : launches_) launch.items.clear();
    for (std::size_t i = 0; i < items_.size(); ++i) {
      Launch& launch = options_.exact || !is_whole(items_[i]) ? launches_[1] : launches_[0];
      launch.items.push_back(static_cast<std::int64_t>(i));
    }
    for (Launch& launch : launches_) {
      if (launch.items.empty()) continue;
      args_.exact = &launch == &launches_[1];
      launch.launch.replan(backend_, kernels_, device_items(launch.items), batch_.chunk_tokens,
                           args_, stream_);
    }
    open_items();
  }

  std::span<const WorkItem> items() const override { return items_; }

  const std::vector<OpenItem>& run(ResultBuilder& results,
                                   std::atomic<std::int64_t>* chunks_done) override {
    for (const Launch& launch : launches_) {
      if (!launch.items.empty()) launch.launch.run(stream_);
    }
    if (!open_.empty()) {
      const DeviceLaunch& launch = launches_[1].launch;
      stream_.download(host_nodes_.data(), launch.args().partials, node_bytes(launch.plan()));
    }
    stream_.synchronise();
    const std::int64_t items = std::ssize(items_);
#pragma omp parallel for schedule(dynamic, 1) \
    num_threads(options_.threads) if (items > 1 && options_.threads > 1)
    for (std::int64_t i = 0; i < items; ++i) {
      if (is_whole(items_[i])) store(items_[i], results);
      if (chunks_done != nullptr) chunks_done->fetch_add(items_[i].chunks.size());
    }
    return open_;
  }

 private:
  std::int64_t out_row_bytes() const {
    return batch_.shape.d_v * size_of(batch_.out_dtype);
  }
  std::int64_t num_chunks(const WorkItem& item) const {
    return batch_.num_chunks(batch_.requests[item.request]);
  }
  static std::int64_t node_bytes(const DevicePlan& plan) {
    return plan.node_offsets.back() * std::int64_t{sizeof(float)};
  }

  bool is_whole(const WorkItem& item) const {
    return item.chunks == Range{0, num_chunks(item)};
  }

  DecodeArgs tensors(const RankInputs& inputs) const {
    const auto [h_q, h_kv, d_qk, d_v] = batch_.shape;
    const OperatorLayout layout{.q_token_stride = shard_.heads() * d_qk,
                                .q_head_stride = d_qk,
                                .kv_page_stride = inputs.kv.page_stride,
                                .kv_token_stride = inputs.kv.token_stride,
                                .kv_head_stride = inputs.kv.head_stride,
                                .out_token_stride = shard_.heads() * d_v,
                                .out_head_stride = d_v,
                                .lse_token_stride = shard_.heads(),
                                .lse_head_stride = 1};
    DecodeArgs args = args_of(batch_, layout, true);
    args.q = shard_.q().as<const std::uint16_t>();
    args.kv = shard_.kv().as<const std::uint16_t>();
    args.num_pages = shard_.num_pages();
    args.block_tables = shard_.block_tables().as<const std::int32_t>();
    args.out = out_.data();
    args.lse = lse_.as<float>();
    return args;
  }

  /// Where the row of the item's first head and query token 0 lies among [tokens, heads].
  std::int64_t first_row(const WorkItem& item) const {
    const std::size_t piece = uploaded_[item.piece];
    return shard_.token_begin(piece) * shard_.heads() + item.heads.begin -
           pieces_[piece].heads.begin;
  }

  std::vector<DeviceItem> device_items(std::span<const std::int64_t> chosen) const {
    std::vector<DeviceItem> items;
    for (const std::int64_t i : chosen) {
      const WorkItem& item = items_[i];
      const Request& request = batch_.requests[item.request];
      items.push_back({.q = first_row(item) * batch_.shape.d_qk,
                       .out = first_row(item) * batch_.shape.d_v,
                       .lse = first_row(item),
                       .block_table = shard_.table_begin(uploaded_[item.piece]),
                       .kv_head = item.kv_head,
                       .heads = item.heads.size(),
                       .query_len = request.query_len,
                       .context_len = request.context_len,
                       .rows = item.rows,
                       .chunks = item.chunks});
    }
    return items;
  }

  /// The nodes of open items lie at the begin of the last launch's partials.
  void open_items() {
    open_.clear();
    const Launch& last = launches_[1];
    if (last.items.empty()) return;
    const std::vector<std::int64_t>& offsets = last.launch.plan().node_offsets;
    reserve(host_nodes_, node_bytes(last.launch.plan()));
    for (std::size_t i = 0; i < last.items.size(); ++i) {
      if (offsets[i] == offsets[i + 1]) continue;
      const WorkItem& item = items_[last.items[i]];
      OpenItem open{last.items[i], {}};
      float* at = host_nodes_.as<float>() + offsets[i];
      for (const TreeNode node : maximal_nodes(item.chunks, num_chunks(item))) {
        open.nodes.push_back({node, partial_at(at, item.rows.size(), batch_.shape.d_v)});
        at += partial_floats(item.rows.size(), batch_.shape.d_v);
      }
      open_.push_back(std::move(open));
    }
  }

  void store(const WorkItem& item, ResultBuilder& results) const {
    for (std::int64_t row = item.rows.begin; row < item.rows.end; ++row) {
      const std::int64_t at =
          first_row(item) + row / item.heads.size() * shard_.heads() + row % item.heads.size();
      results.store(item, row, out_.data() + at * out_row_bytes(), lse_.as<float>()[at]);
    }
  }

  std::string_view backend_;
  const KernelList& kernels_;
  const Batch& batch_;
  DecoderOptions options_;
  std::vector<Piece> pieces_;  // whose tensors were uploaded
  Stream stream_;
  ShardUpload shard_;
  DecodeArgs args_;
  std::vector<WorkItem> items_;
  std::vector<std::size_t> uploaded_;  // for each piece planned, its place in pieces_
  // In the host's memory: the GPU writes results there while it computes others.
  PinnedBuffer out_;
  PinnedBuffer lse_;
  std::array<Launch, 2> launches_;  // the exact one is the last
  PinnedBuffer host_nodes_;
  std::vector<OpenItem> open_;
};

}  // namespace

std::unique_ptr<NodeDecoder> make_device_decoder(std::string_view backend,
                                                 const KernelList& kernels, const Batch& batch,
                                                 std::span<const Piece> pieces,
                                                 const RankInputs& inputs,
                                                 const DecoderOptions& options) {
  return std::make_unique<DeviceDecoder>(backend, kernels, batch, pieces, inputs, options);
}

}  // namespace mla::kernels::cuda
