#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/device_kernel.h"

namespace mla::kernels::cuda {

/// A kernel, and the items that it is meant for.
struct KernelChoice {
  const DeviceKernel* kernel = nullptr;
  std::int64_t most_rows = 0;  ///< of an item
};

/// The kernels of a backend; the first that can run a batch is taken.
using KernelList = std::vector<KernelChoice>;

const KernelList& sm90_kernels();
const KernelList& simt_kernels();

/// The first of the kernels that can run `args` and is meant for all of `items`; null if there is
/// none, and `reason` why the last one cannot. Of `args` only the sizes, strides and types are
/// looked at.
const DeviceKernel* find_kernel(const KernelList& kernels, const DecodeArgs& args,
                                std::span<const DeviceItem> items, std::string& reason);

/// The same for what must run.
/// @throws Unsupported if there is none
const DeviceKernel& choose_kernel(const KernelList& kernels, std::string_view backend,
                                  const DecodeArgs& args, std::span<const DeviceItem> items);

}  // namespace mla::kernels::cuda
