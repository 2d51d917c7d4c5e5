#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/runtime.h"
#include "tests/support/problem.h"
#include "tests/support/runner.h"

namespace mla::test {

/// One run's results as the GPU left them: out [total_q, h_q, d_v] and lse [total_q, h_q], poisoned
/// with NaN before, and the maximal nodes of open items, [items][nodes].
struct DeviceResults {
  Results results;
  std::vector<std::vector<Nodes>> nodes;  ///< each of one node
};

/// How to run a kernel.
struct DeviceRun {
  const kernels::cuda::DeviceKernel* kernel = nullptr;
  bool exact = true;
  int teams = 0;          ///< 0: as many as the kernel asks for
  int runs = 1;           ///< of the same plan
  bool as_graph = false;  ///< captured, and launched `runs` times
};

/// A problem's tensors in the memory of the current GPU.
class DeviceProblem {
 public:
  /// @param first_page where the pages begin; what lies before is NaN
  explicit DeviceProblem(const Problem& problem, std::int64_t first_page = 0);

  /// An item for each request and KV head, with all rows and chunks.
  std::vector<kernels::cuda::DeviceItem> items() const;
  /// One of them, for some heads of the KV head's group only.
  kernels::cuda::DeviceItem item(std::int64_t request, std::int64_t kv_head, Range heads) const;

  /// The tensors, sizes and types.
  kernels::cuda::DecodeArgs args(bool exact) const;
  std::string why_unsupported(const DeviceRun& run) const {
    return run.kernel->why_unsupported(args(run.exact));
  }

  /// Runs `items` and checks that the plan's counters are left at zero.
  /// @throws std::runtime_error if they are not
  DeviceResults run(const DeviceRun& how, std::span<const kernels::cuda::DeviceItem> items) const;
  DeviceResults run(const DeviceRun& how) const { return run(how, items()); }

 private:
  const Problem& problem_;
  std::int64_t num_pages_ = 0;
  std::int64_t q_row_stride_ = 0;
  kernels::cuda::Stream stream_;
  kernels::cuda::DeviceBuffer q_;
  kernels::cuda::DeviceBuffer kv_;
  kernels::cuda::DeviceBuffer tables_;
  kernels::cuda::DeviceBuffer out_;
  kernels::cuda::DeviceBuffer lse_;
  std::vector<std::int64_t> table_begins_;
};

}  // namespace mla::test
