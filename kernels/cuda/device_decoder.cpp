#include "kernels/cuda/device_decoder.h"

#include "core/chunk_tree.h"
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
                std::span<const Piece> pieces, const RankInputs& inputs, bool exact)
      : batch_(batch),
        items_(work_items(batch, pieces)),
        shard_(batch, pieces, inputs, stream_),
        first_heads_(pieces.size()) {
    for (std::size_t p = 0; p < pieces.size(); ++p) first_heads_[p] = pieces[p].heads.begin;
    const std::int64_t rows = shard_.tokens() * shard_.heads();
    out_ = DeviceBuffer(rows * batch.shape.d_v * size_of(batch.out_dtype), "results");
    lse_ = DeviceBuffer(rows * std::int64_t{sizeof(float)}, "results");
    host_out_ = PinnedBuffer(out_.bytes());
    host_lse_ = PinnedBuffer(lse_.bytes());

    // Partials that other ranks merge are those of the canonical tree in any case.
    std::vector<std::int64_t> whole;
    std::vector<std::int64_t> open;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      (exact || !is_whole(items_[i]) ? open : whole).push_back(static_cast<std::int64_t>(i));
    }
    DecodeArgs args = tensors(inputs);
    const auto add = [&](std::vector<std::int64_t> items, bool is_exact) {
      if (items.empty()) return;
      args.exact = is_exact;
      DeviceLaunch launch(backend, kernels, device_items(items), batch.chunk_tokens, args, stream_);
      launches_.push_back({std::move(items), std::move(launch)});
    };
    add(std::move(whole), false);
    add(std::move(open), true);
    open_items();
    stream_.synchronise();
  }

  std::span<const WorkItem> items() const override { return items_; }

  const std::vector<OpenItem>& run(ResultBuilder& results,
                                   std::atomic<std::int64_t>* chunks_done) override {
    for (const Launch& launch : launches_) launch.launch.run(stream_);
    stream_.download(host_out_.data(), out_.data(), out_.bytes());
    stream_.download(host_lse_.data(), lse_.data(), lse_.bytes());
    if (!open_.empty()) {
      stream_.download(host_nodes_.data(), launches_.back().launch.args().partials,
                       host_nodes_.bytes());
    }
    stream_.synchronise();
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (is_whole(items_[i])) store(items_[i], results);
      if (chunks_done != nullptr) chunks_done->fetch_add(items_[i].chunks.size());
    }
    return open_;
  }

 private:
  std::int64_t num_chunks(const WorkItem& item) const {
    return batch_.num_chunks(batch_.requests[item.request]);
  }
  bool is_whole(const WorkItem& item) const { return item.chunks == Range{0, num_chunks(item)}; }

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
    return shard_.token_begin(item.piece) * shard_.heads() + item.heads.begin -
           first_heads_[item.piece];
  }

  std::vector<DeviceItem> device_items(std::span<const std::int64_t> chosen) const {
    std::vector<DeviceItem> items;
    for (const std::int64_t i : chosen) {
      const WorkItem& item = items_[i];
      const Request& request = batch_.requests[item.request];
      items.push_back({.q = first_row(item) * batch_.shape.d_qk,
                       .out = first_row(item) * batch_.shape.d_v,
                       .lse = first_row(item),
                       .block_table = shard_.table_begin(item.piece),
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
    if (launches_.empty()) return;
    const Launch& last = launches_.back();
    const std::vector<std::int64_t>& offsets = last.launch.plan().node_offsets;
    host_nodes_ = PinnedBuffer(offsets.back() * std::int64_t{sizeof(float)});
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
    const std::int64_t row_bytes = batch_.shape.d_v * size_of(batch_.out_dtype);
    for (std::int64_t row = item.rows.begin; row < item.rows.end; ++row) {
      const std::int64_t at =
          first_row(item) + row / item.heads.size() * shard_.heads() + row % item.heads.size();
      results.store(item, row, host_out_.data() + at * row_bytes, host_lse_.as<float>()[at]);
    }
  }

  const Batch& batch_;
  std::vector<WorkItem> items_;
  Stream stream_;
  ShardUpload shard_;
  std::vector<std::int64_t> first_heads_;  // of the pieces
  DeviceBuffer out_;
  DeviceBuffer lse_;
  PinnedBuffer host_out_;
  PinnedBuffer host_lse_;
  std::vector<Launch> launches_;  // the exact one is the last
  PinnedBuffer host_nodes_;
  std::vector<OpenItem> open_;
};

}  // namespace

std::unique_ptr<NodeDecoder> make_device_decoder(std::string_view backend,
                                                 const KernelList& kernels, const Batch& batch,
                                                 std::span<const Piece> pieces,
                                                 const RankInputs& inputs, bool exact) {
  return std::make_unique<DeviceDecoder>(backend, kernels, batch, pieces, inputs, exact);
}

}  // namespace mla::kernels::cuda
