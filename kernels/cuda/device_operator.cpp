#include "kernels/cuda/device_operator.h"

#include <cstddef>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/error.h"
#include "kernels/cuda/batch_args.h"
#include "kernels/cuda/plan_memory.h"
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

class DeviceOperator final : public DecodeOperator {
 public:
  DeviceOperator(std::string_view backend, const KernelList& kernels, const Batch& batch,
                 const OperatorLayout& layout, const OperatorOptions& options)
      : device_(options.device), args_(args_of(batch, layout, options.exact)) {
    const CurrentDevice current(device_);
    const std::vector<DeviceItem> items = items_of(batch, layout);
    kernel_ = &choose_kernel(kernels, backend, args_, items);
    const PlanSizes sizes{batch.shape.d_v, batch.chunk_tokens, options.exact};
    plan_ = make_device_plan(items, sizes, kernel_->geometry(items, sizes, this_device()));
    memory_ = lay_out(plan_);
    tables_.resize(static_cast<std::size_t>(memory_.table_bytes()));
    write_tables(plan_, memory_, tables_.data());
  }

  OperatorMemory memory() const override {
    return {.host_bytes = 0, .device_bytes = memory_.bytes};
  }

  void bind(std::byte* /*host*/, std::byte* device, OperatorStream stream) override {
    const CurrentDevice current(device_);
    check_cuda(
        cudaMemcpyAsync(device, tables_.data(), tables_.size(), cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync");
    check_cuda(cudaMemsetAsync(device + memory_.partials, 0,
                               static_cast<std::size_t>(memory_.mail_bytes), stream),
               "cudaMemsetAsync");
    point_into(plan_, memory_, device, args_);
  }

  void run(const OperatorTensors& tensors, OperatorStream stream) override {
    args_.q = tensors.q;
    args_.kv = tensors.kv;
    args_.num_pages = tensors.num_pages;
    args_.block_tables = tensors.block_tables;
    args_.out = tensors.out;
    args_.lse = tensors.lse;
    const std::string reason = kernel_->why_unsupported(args_);
    if (!reason.empty()) {
      throw Unsupported("tensors", "their addresses",
                        "what " + std::string(kernel_->name()) + " can read: " + reason);
    }
    const CurrentDevice current(device_);
    check_cuda(kernel_->launch(args_, plan_.geometry, stream), kernel_->name());
  }

 private:
  int device_;
  DecodeArgs args_;
  const DeviceKernel* kernel_;
  DevicePlan plan_;
  PlanMemory memory_;
  std::vector<std::byte> tables_;  // as they are uploaded
};

}  // namespace

std::unique_ptr<DecodeOperator> make_device_operator(std::string_view backend,
                                                     const KernelList& kernels, const Batch& batch,
                                                     const OperatorLayout& layout,
                                                     const OperatorOptions& options) {
  const int devices = count_devices();
  if (options.device >= devices) {
    throw Unsupported("device", std::to_string(options.device),
                      "a GPU that is there: " + std::to_string(devices) + " are visible");
  }
  return std::make_unique<DeviceOperator>(backend, kernels, batch, layout, options);
}

}  // namespace mla::kernels::cuda
