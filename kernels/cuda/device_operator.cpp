#include "kernels/cuda/device_operator.h"

#include <numbers>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/error.h"
#include "kernels/cuda/runtime.h"

namespace mla::kernels::cuda {
namespace {

/// Makes a GPU the calling thread's for as long as it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int ordinal) {
    check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
    changed_ = before_ != ordinal;
    if (changed_) use_device(ordinal);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

OutType out_type_of(DType dtype) {
  if (dtype == DType::kFp32) return OutType::kFp32;
  return dtype == DType::kBf16 ? OutType::kBf16 : OutType::kFp16;
}

DecodeArgs args_of(const Batch& batch, const OperatorLayout& layout, bool exact) {
  return {.q_token_stride = layout.q_token_stride,
          .q_head_stride = layout.q_head_stride,
          .page_block_size = batch.page_block_size,
          .page_stride = layout.kv_page_stride,
          .token_stride = layout.kv_token_stride,
          .kv_head_stride = layout.kv_head_stride,
          .out_token_stride = layout.out_token_stride,
          .out_head_stride = layout.out_head_stride,
          .lse_token_stride = layout.lse_token_stride,
          .lse_head_stride = layout.lse_head_stride,
          .h_kv = static_cast<std::int32_t>(batch.shape.h_kv),
          .d_qk = static_cast<std::int32_t>(batch.shape.d_qk),
          .d_v = static_cast<std::int32_t>(batch.shape.d_v),
          .out_type = out_type_of(batch.out_dtype),
          .bf16 = batch.dtype == DType::kBf16,
          .causal = batch.causal,
          .exact = exact,
          .scale_log2 = static_cast<float>(batch.softmax_scale * std::numbers::log2e)};
}

/// All heads of all requests, each of which may have any number of rows.
std::vector<DeviceItem> items_of(const Batch& batch, const OperatorLayout& layout) {
  std::vector<DeviceItem> items;
  const std::int64_t group = batch.shape.heads_per_kv();
  std::int64_t token = 0;
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    const Request& request = batch.requests[r];
    for (std::int64_t g = 0; g < batch.shape.h_kv; ++g) {
      const std::int64_t head = g * group;
      items.push_back({.q = token * layout.q_token_stride + head * layout.q_head_stride,
                       .out = token * layout.out_token_stride + head * layout.out_head_stride,
                       .lse = token * layout.lse_token_stride + head * layout.lse_head_stride,
                       .block_table = static_cast<std::int64_t>(r) * layout.block_table_stride,
                       .kv_head = g,
                       .heads = group,
                       .query_len = request.query_len,
                       .context_len = request.context_len,
                       .rows = {0, request.query_len * group},
                       .chunks = {0, batch.num_chunks(request)}});
    }
    token += request.query_len;
  }
  return items;
}

const DeviceKernel& choose_kernel(std::span<const DeviceKernel* const> kernels,
                                  const DecodeArgs& args) {
  std::string reasons;
  for (const DeviceKernel* kernel : kernels) {
    const std::string reason = kernel->why_unsupported(args);
    if (reason.empty()) return *kernel;
    reasons += (reasons.empty() ? "" : "; ") + std::string(kernel->name()) + ": " + reason;
  }
  throw Unsupported("tensors", "sizes or strides", "what a GPU kernel can compute: " + reasons);
}

/// The tables of a plan one after the other in device memory, and what runs write.
class DevicePlanMemory {
 public:
  explicit DevicePlanMemory(const DevicePlan& plan)
      : plan_(plan),
        parts_(place<Part>(std::ssize(plan.parts))),
        merges_(place<Merge>(std::ssize(plan.merges))),
        shares_(place<MergeShare>(std::ssize(plan.shares))),
        share_offsets_(place<std::int32_t>(std::ssize(plan.share_offsets))),
        counters_(place<std::uint32_t>(2 * plan.counters())),
        partials_(place<float>(plan.partial_floats)) {}

  std::int64_t bytes() const { return bytes_; }

  void upload(std::byte* memory, StreamHandle stream) const {
    copy(memory + parts_, plan_.parts, stream);
    copy(memory + merges_, plan_.merges, stream);
    copy(memory + shares_, plan_.shares, stream);
    copy(memory + share_offsets_, plan_.share_offsets, stream);
    check_cuda(cudaMemsetAsync(memory + counters_, 0, partials_ - counters_, stream),
               "cudaMemsetAsync");
  }

  void point_to(std::byte* memory, DecodeArgs& args) const {
    args.parts = reinterpret_cast<const Part*>(memory + parts_);
    args.merges = reinterpret_cast<const Merge*>(memory + merges_);
    args.shares = reinterpret_cast<const MergeShare*>(memory + shares_);
    args.share_offsets = reinterpret_cast<const std::int32_t*>(memory + share_offsets_);
    args.counters = reinterpret_cast<std::uint32_t*>(memory + counters_);
    args.partials = reinterpret_cast<float*>(memory + partials_);
  }

 private:
  template <class T>
  std::int64_t place(std::int64_t count) {
    constexpr std::int64_t kAlignment = 256;
    const std::int64_t begin = bytes_;
    bytes_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), kAlignment);
    return begin;
  }

  template <class T>
  static void copy(std::byte* to, const std::vector<T>& from, StreamHandle stream) {
    if (from.empty()) return;
    check_cuda(
        cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync");
  }

  const DevicePlan& plan_;
  std::int64_t bytes_ = 0;
  std::int64_t parts_;  // offsets in bytes
  std::int64_t merges_;
  std::int64_t shares_;
  std::int64_t share_offsets_;
  std::int64_t counters_;
  std::int64_t partials_;
};

class DeviceOperator final : public DecodeOperator {
 public:
  DeviceOperator(std::span<const DeviceKernel* const> kernels, const Batch& batch,
                 const OperatorLayout& layout, const OperatorOptions& options)
      : device_(options.device),
        args_(args_of(batch, layout, options.exact)),
        kernel_(choose_kernel(kernels, args_)),
        plan_(make_plan(batch, layout, options)),
        memory_(plan_) {}

  OperatorMemory memory() const override {
    return {.host_bytes = 0, .device_bytes = memory_.bytes()};
  }

  void bind(std::byte* /*host*/, std::byte* device, OperatorStream stream) override {
    const CurrentDevice current(device_);
    memory_.upload(device, stream);
    memory_.point_to(device, args_);
  }

  void run(const OperatorTensors& tensors, OperatorStream stream) override {
    args_.q = tensors.q;
    args_.kv = tensors.kv;
    args_.num_pages = tensors.num_pages;
    args_.block_tables = tensors.block_tables;
    args_.out = tensors.out;
    args_.lse = tensors.lse;
    const std::string reason = kernel_.why_unsupported(args_);
    if (!reason.empty()) {
      throw Unsupported("tensors", "addresses",
                        "what " + std::string(kernel_.name()) + " can read: " + reason);
    }
    const CurrentDevice current(device_);
    check_cuda(kernel_.launch(args_, plan_.geometry, stream), kernel_.name());
  }

 private:
  DevicePlan make_plan(const Batch& batch, const OperatorLayout& layout,
                       const OperatorOptions& options) const {
    const CurrentDevice current(device_);
    const std::vector<DeviceItem> items = items_of(batch, layout);
    const PlanSizes sizes{batch.shape.d_v, batch.chunk_tokens, options.exact};
    return make_device_plan(items, sizes, kernel_.geometry(items, sizes, this_device()));
  }

  int device_;
  DecodeArgs args_;
  const DeviceKernel& kernel_;
  DevicePlan plan_;
  DevicePlanMemory memory_;
};

}  // namespace

std::unique_ptr<DecodeOperator> make_device_operator(std::span<const DeviceKernel* const> kernels,
                                                     const Batch& batch,
                                                     const OperatorLayout& layout,
                                                     const OperatorOptions& options) {
  const int devices = count_devices();
  if (options.device >= devices) {
    throw Unsupported("device", std::to_string(options.device),
                      "a GPU that is there: " + std::to_string(devices) + " are visible");
  }
  return std::make_unique<DeviceOperator>(kernels, batch, layout, options);
}

}  // namespace mla::kernels::cuda
