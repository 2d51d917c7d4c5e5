#include "kernels/cuda/kernel_list.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "kernels/cuda/simt/kernel.h"
#include "kernels/cuda/sm90/kernels.h"

namespace mla::kernels::cuda {

namespace {

constexpr std::int64_t kAnyRows = std::numeric_limits<std::int64_t>::max();

}  // namespace

const KernelList& sm90_kernels() {
  static const KernelList list{{&sm90::decode_m16(), 16},
                               {&sm90::decode_seesaw(), kAnyRows},
                               {&sm90::decode_m64(), kAnyRows}};
  return list;
}

const KernelList& simt_kernels() {
  static const KernelList list{{&simt_kernel(), kAnyRows}};
  return list;
}

const DeviceKernel* find_kernel(const KernelList& kernels, const DecodeArgs& args,
                                std::span<const DeviceItem> items, std::string& reason) {
  std::int64_t most_rows = 0;
  for (const DeviceItem& item : items) most_rows = std::max(most_rows, item.rows.size());
  reason = "it has no kernel";
  for (const KernelChoice& choice : kernels) {
    if (most_rows > choice.most_rows) continue;
    reason = choice.kernel->why_unsupported(args);
    if (reason.empty()) return choice.kernel;
  }
  return nullptr;
}

const DeviceKernel& choose_kernel(const KernelList& kernels, std::string_view backend,
                                  const DecodeArgs& args, std::span<const DeviceItem> items) {
  std::string reason;
  const DeviceKernel* const kernel = find_kernel(kernels, args, items, reason);
  if (kernel != nullptr) return *kernel;
  throw Unsupported("--backend", backend, "one that can decode this batch: " + reason);
}

}  // namespace mla::kernels::cuda
