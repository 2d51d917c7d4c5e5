#include "kernels/cuda/plan_memory.h"

#include <cstring>
#include <vector>

namespace mla::kernels::cuda {
namespace {

template <class T>
std::int64_t bytes_of(const std::vector<T>& table) {
  return std::ssize(table) * std::int64_t{sizeof(T)};
}

template <class T>
void write(const std::vector<T>& table, std::byte* to) {
  if (!table.empty()) std::memcpy(to, table.data(), table.size() * sizeof(T));
}

}  // namespace

PlanMemory lay_out(const DevicePlan& plan) {
  constexpr std::int64_t kAlignment = 256;
  const auto after = [](std::int64_t begin, std::int64_t bytes) {
    return begin + round_up(bytes, kAlignment);
  };
  PlanMemory memory;
  memory.merges = after(0, bytes_of(plan.parts));
  memory.shares = after(memory.merges, bytes_of(plan.merges));
  memory.share_offsets = after(memory.shares, bytes_of(plan.shares));
  memory.counters = after(memory.share_offsets, bytes_of(plan.share_offsets));
  memory.partials = after(memory.counters, plan.counters() * std::int64_t{sizeof(std::uint32_t)});
  const std::int64_t partial_bytes = plan.partial_floats * std::int64_t{sizeof(float)};
  if (plan.merges_by_mail()) memory.mail_bytes = partial_bytes;
  memory.bytes = after(memory.partials, partial_bytes);
  return memory;
}

void write_tables(const DevicePlan& plan, const PlanMemory& memory, std::byte* to) {
  std::memset(to, 0, static_cast<std::size_t>(memory.table_bytes()));
  write(plan.parts, to);
  write(plan.merges, to + memory.merges);
  write(plan.shares, to + memory.shares);
  write(plan.share_offsets, to + memory.share_offsets);
}

void point_into(const DevicePlan& plan, const PlanMemory& memory, std::byte* device,
                DecodeArgs& args) {
  args.exact = plan.exact;
  args.part_alignment = plan.part_alignment;
  args.parts = reinterpret_cast<const Part*>(device);
  args.merges = reinterpret_cast<const Merge*>(device + memory.merges);
  args.shares = reinterpret_cast<const MergeShare*>(device + memory.shares);
  args.share_offsets = reinterpret_cast<const std::int32_t*>(device + memory.share_offsets);
  args.counters = reinterpret_cast<std::uint32_t*>(device + memory.counters);
  args.partials = reinterpret_cast<float*>(device + memory.partials);
}

}  // namespace mla::kernels::cuda
