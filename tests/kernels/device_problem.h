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

/// `count` elements of the GPU's memory, once all work on `stream` is done.
template <class T>
std::vector<T> download(const kernels::cuda::Stream& stream, const void* from, std::int64_t count) {
  std::vector<T> to(static_cast<std::size_t>(count));
  stream.download(to.data(), from, count * std::int64_t{sizeof(T)});
  stream.synchronise();
  return to;
}

/// How to run a kernel.
struct DeviceRun {
  const kernels::cuda::DeviceKernel* kernel = nullptr;
  bool exact = true;
  int teams = 0;          ///< 0: as many as the kernel asks for
  int runs = 1;           ///< of the same plan
  bool as_graph = false;  ///< captured, and launched `runs` times
};

/// The sizes, strides and types of a problem's tensors, without these.
kernels::cuda::DecodeArgs args_without_tensors(const ProblemLayout& layout, bool exact);

/// A problem's tensors in the memory of the current GPU.
class DeviceProblem {
 public:
  /// @param first_page where the pages begin; what lies before is NaN
  explicit DeviceProblem(const Problem& problem, std::int64_t first_page = 0);

  /// The tensors of Problem(layout.spec()), made on the GPU.
  struct MakeThere {};
  DeviceProblem(const ProblemLayout& layout, MakeThere);

  /// An item for each request and KV head, with all rows and chunks.
  std::vector<kernels::cuda::DeviceItem> items() const;
  /// One of them, for some heads of the KV head's group only.
  kernels::cuda::DeviceItem item(std::int64_t request, std::int64_t kv_head, Range heads) const;

  const ProblemLayout& layout() const { return layout_; }
  /// The tensors, sizes and types.
  kernels::cuda::DecodeArgs args(bool exact) const;
  /// All work on them is enqueued here.
  const kernels::cuda::Stream& stream() const { return stream_; }
  std::string why_unsupported(const DeviceRun& run) const {
    return run.kernel->why_unsupported(args(run.exact));
  }

  /// Runs `items` and checks that the plan's counters are left at zero, or as many as the runs.
  /// @throws std::runtime_error if they are not
  DeviceResults run(const DeviceRun& how, std::span<const kernels::cuda::DeviceItem> items) const;
  DeviceResults run(const DeviceRun& how) const { return run(how, items()); }

  /// The same for all items, with the results left where `args` says.
  void run_on_device(const DeviceRun& how) const { execute(how, items()); }

 private:
  /// A plan that has been run, and the memory in which it was.
  struct Executed {
    kernels::cuda::DevicePlan plan;
    kernels::cuda::DeviceBuffer memory;
    const float* partials = nullptr;
  };

  DeviceProblem(const ProblemLayout& layout, std::int64_t first_page);
  Executed execute(const DeviceRun& how, std::span<const kernels::cuda::DeviceItem> items) const;
  void poison_results() const;

  const ProblemLayout& layout_;
  std::int64_t num_pages_ = 0;
  kernels::cuda::Stream stream_;
  kernels::cuda::DeviceBuffer q_;
  kernels::cuda::DeviceBuffer kv_;
  kernels::cuda::DeviceBuffer tables_;
  kernels::cuda::DeviceBuffer out_;
  kernels::cuda::DeviceBuffer lse_;
  std::vector<std::int64_t> table_begins_;
};

}  // namespace mla::test
