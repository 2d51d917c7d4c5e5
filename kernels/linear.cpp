#include "kernels/linear.h"

#include <algorithm>

#include "kernels/cpu/portable/linear.h"
#include "kernels/linear_kernel.h"

namespace mla::kernels {
namespace {

constexpr std::int64_t kOutputStep = 16;  // outputs that kernels compute together
constexpr std::int64_t kTasksPerThread = 8;

bool read_same_x(const LinearParams& a, const LinearParams& b) {
  return a.x == b.x && a.x_stride == b.x_stride && a.rows == b.rows &&
         a.weights.cols == b.weights.cols && a.weights.type == b.weights.type;
}

/// The work of a call: first the panels of x to pack, then tasks, which are some outputs of a
/// layer for all its rows. Both are numbered through all layers.
class Work {
 public:
  Work(const LinearKernel& kernel, std::span<const LinearParams> layers, int threads,
       std::byte* packed)
      : kernel_(kernel), layers_(layers), packed_(packed) {
    std::int64_t outputs = 0;
    for (const LinearParams& layer : layers) outputs += layer.outputs.size();
    const std::int64_t even = ceil_div(outputs, threads * kTasksPerThread);
    task_outputs_ = std::clamp(round_up(even, kOutputStep), kOutputStep, kMostLinearOutputs);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      panels_ += panels_of(i);
      tasks_ += tasks_of(layers[i]);
    }
  }

  std::int64_t panels() const { return panels_; }
  std::int64_t tasks() const { return tasks_; }

  void pack(std::int64_t panel) const {
    std::byte* to = packed_;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const std::int64_t panels = panels_of(i);
      const std::int64_t bytes = panels == 0 ? 0 : kernel_.panel_bytes(layers_[i].weights.cols);
      if (panel < panels) return kernel_.pack(layers_[i], panel, to + panel * bytes);
      panel -= panels;
      to += panels * bytes;
    }
  }

  void multiply(std::int64_t task) const {
    const std::byte* packed = nullptr;
    const std::byte* next = packed_;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const LinearParams& layer = layers_[i];
      if (!packs(layer)) packed = nullptr;
      if (const std::int64_t panels = panels_of(i); panels > 0) {
        packed = next;
        next += panels * kernel_.panel_bytes(layer.weights.cols);
      }
      const std::int64_t tasks = tasks_of(layer);
      if (task < tasks) {
        const std::int64_t begin = layer.outputs.begin + task * task_outputs_;
        const std::int64_t end = std::min(begin + task_outputs_, layer.outputs.end);
        return kernel_.multiply(layer, {begin, end}, packed);
      }
      task -= tasks;
    }
  }

 private:
  bool packs(const LinearParams& layer) const {
    return kernel_.packs != nullptr && kernel_.packs(layer.weights.type);
  }
  /// Panels to pack for a layer: none if the one before has packed them.
  std::int64_t panels_of(std::size_t i) const {
    if (!packs(layers_[i]) || (i > 0 && read_same_x(layers_[i - 1], layers_[i]))) return 0;
    return ceil_div(layers_[i].rows, kLinearPanelRows);
  }
  std::int64_t tasks_of(const LinearParams& layer) const {
    return layer.rows == 0 ? 0 : ceil_div(layer.outputs.size(), task_outputs_);
  }

  const LinearKernel& kernel_;
  std::span<const LinearParams> layers_;
  std::byte* packed_;
  std::int64_t task_outputs_ = 0;
  std::int64_t panels_ = 0;
  std::int64_t tasks_ = 0;
};

}  // namespace

const LinearKernel& HostBackend::linear_kernel() const {
  static constexpr LinearKernel kPortable{portable::multiply_linear};
  return kPortable;
}

std::int64_t linear_workspace_bytes(const HostBackend& backend, std::int64_t max_cols,
                                    std::int64_t max_rows, std::int64_t max_layers) {
  const LinearKernel& kernel = backend.linear_kernel();
  if (kernel.packs == nullptr) return 0;
  // Every layer may end with a panel of one row.
  const std::int64_t panels = ceil_div(max_rows, kLinearPanelRows) + max_layers;
  return panels * kernel.panel_bytes(max_cols);
}

void linear(const HostBackend& backend, std::span<const LinearParams> layers, int threads,
            std::span<std::byte> workspace) noexcept {
  const Work work(backend.linear_kernel(), layers, threads, workspace.data());
#pragma omp parallel num_threads(threads)
  {
#pragma omp for
    for (std::int64_t panel = 0; panel < work.panels(); ++panel) work.pack(panel);
      // In no fixed order, since a thread may be slowed down by others on its core.
#pragma omp for schedule(dynamic)
    for (std::int64_t task = 0; task < work.tasks(); ++task) work.multiply(task);
  }
}

}  // namespace mla::kernels
