#include "kernels/cuda/device_launch.h"

namespace mla::kernels::cuda {

void DeviceLaunch::replan(std::string_view backend, const KernelList& kernels,
                          std::span<const DeviceItem> items, std::int64_t chunk_tokens,
                          const DecodeArgs& args, const Stream& stream) {
  args_ = args;
  kernel_ = &choose_kernel(kernels, backend, args, items);
  const PlanSizes sizes{args.d_v, chunk_tokens, args.exact};
  plan_ = make_device_plan(items, sizes, kernel_->geometry(items, sizes, this_device()));
  const PlanMemory memory = lay_out(plan_);
  reserve(memory_, memory.bytes, "the plan's tables and partials");
  reserve(tables_, memory.table_bytes());
  write_tables(plan_, memory, tables_.data());
  stream.upload(memory_.data(), tables_.data(), memory.table_bytes());
  stream.fill(memory_.data() + memory.partials, std::byte{0}, memory.mail_bytes);
  point_into(plan_, memory, memory_.data(), args_);
}

}  // namespace mla::kernels::cuda
