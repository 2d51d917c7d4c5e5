#include "launch/bench/linear_bench.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include <fmt/format.h>
#include <omp.h>

#include "core/aligned_buffer.h"
#include "core/build_info.h"
#include "core/dtype.h"
#include "kernels/linear.h"
#include "launch/bench/contender.h"
#include "launch/bench/limits.h"
#include "launch/bench/pool.h"
#include "launch/bench/sizes.h"
#include "launch/machine.h"

namespace mla::launch::bench {
namespace {

/// Layers of one shape that run together.
struct LayerShape {
  std::int64_t count = 1;
  std::int64_t outputs = 0;
  std::int64_t cols = 0;

  std::int64_t elements() const { return count * outputs * cols; }
};

std::vector<LayerShape> parse_layers(const std::string& text) {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  constexpr const char* kField = "--layers";
  std::vector<LayerShape> shapes;
  for (const std::string& item : parse_names(kField, text)) {
    const std::size_t colon = item.find(':');
    const std::size_t begin = colon == std::string::npos ? 0 : colon + 1;
    const std::size_t cross = item.find('x', begin);
    if (cross == std::string::npos) {
      throw InvalidArgument(kField, item, "outputs x columns, as 2048x1408 or 6:2048x1408");
    }
    LayerShape shape;
    if (begin > 0) shape.count = parse_size(kField, item.substr(0, colon), 4096);
    shape.outputs = parse_size(kField, item.substr(begin, cross - begin), kMost);
    shape.cols = parse_size(kField, item.substr(cross + 1), kMost);
    shapes.push_back(shape);
  }
  return shapes;
}

std::string to_string(const LayerShape& shape) {
  const std::string one = fmt::format("{}x{}", shape.outputs, shape.cols);
  return shape.count == 1 ? one : fmt::format("{}:{}", shape.count, one);
}

/// Layers whose weights lie in other places of a pool at every run.
class LinearContender final : public Contender {
 public:
  LinearContender(const LayerShape& shape, std::int64_t rows, int threads,
                  const kernels::HostBackend& backend, const Pool& pool)
      : shape_(shape),
        rows_(rows),
        threads_(threads),
        backend_(backend),
        pool_(pool),
        x_(shape.count * rows * shape.cols),
        y_(shape.count * rows * shape.outputs),
        workspace_(
            kernels::linear_workspace_bytes(backend, shape.cols, shape.count * rows, shape.count)),
        layers_(shape.count) {
    for (std::size_t i = 0; i < x_.size(); ++i) {
      x_[i] = to_float(Bf16{pool.elements()[i * 17 % pool.elements().size()]}) * 1.01F;
    }
  }

  std::string name() const override { return std::string(backend_.name()); }

  void prepare() override {
    const auto elements = static_cast<std::int64_t>(pool_.elements().size());
    if (begin_ + shape_.elements() > elements) begin_ = 0;
    for (std::int64_t i = 0; i < shape_.count; ++i) {
      layers_[i] = {.weights = {.data = pool_.elements().data() + begin_,
                                .type = WeightType::kBf16,
                                .rows = shape_.outputs,
                                .cols = shape_.cols},
                    .outputs = {0, shape_.outputs},
                    .rows = rows_,
                    .x = x_.data() + i * rows_ * shape_.cols,
                    .x_stride = shape_.cols,
                    .y = y_.data() + i * rows_ * shape_.outputs,
                    .y_stride = shape_.outputs};
      begin_ += shape_.outputs * shape_.cols;
    }
  }

  void run() override { kernels::linear(backend_, layers_, threads_, workspace_.span()); }

  /// The last layer, some of its elements.
  kernels::Comparison check() const override {
    constexpr std::int64_t kSamples = 50;
    const kernels::LinearParams& layer = layers_.back();
    std::vector<float> found;
    std::vector<double> exact;
    for (std::int64_t i = 0; i < kSamples; ++i) {
      const std::int64_t row = i % rows_;
      const std::int64_t output = i * (shape_.outputs - 1) / (kSamples - 1);
      const auto* w = static_cast<const std::uint16_t*>(layer.weights.data) + output * shape_.cols;
      double sum = 0;
      for (std::int64_t c = 0; c < shape_.cols; ++c) {
        sum += static_cast<double>(to_float(Bf16{w[c]})) * layer.x[row * shape_.cols + c];
      }
      found.push_back(layer.y[row * shape_.outputs + output]);
      exact.push_back(sum);
    }
    return kernels::compare(found, {}, exact, {}, {.out_abs = 1e-3, .out_rel = 1e-4});
  }

 private:
  LayerShape shape_;
  std::int64_t rows_;
  int threads_;
  const kernels::HostBackend& backend_;
  const Pool& pool_;
  std::int64_t begin_ = 0;
  std::vector<float> x_;
  std::vector<float> y_;
  AlignedBuffer<std::byte> workspace_;
  std::vector<kernels::LinearParams> layers_;
};

std::vector<const kernels::HostBackend*> choose_backends(const std::string& names) {
  std::vector<const kernels::HostBackend*> chosen;
  for (const std::string& name : parse_names("--backend", names)) {
    chosen.push_back(&kernels::find_host_backend(name));
  }
  return chosen;
}

}  // namespace

ExitCode run_linear_bench(const LinearBenchOptions& options,
                          const std::function<void(const std::string&)>& sink) {
  const std::vector<LayerShape> shapes = parse_layers(options.layers);
  const std::vector<std::int64_t> rows_list = parse_sizes("--tokens", options.rows);
  const auto backends = choose_backends(options.backends);
  const std::string cores = std::to_string(omp_get_num_procs());
  const auto threads_list =
      parse_sizes("--threads", options.threads.empty() ? cores : options.threads);

  std::int64_t bytes = options.hot ? 0 : cold_pool_bytes();
  for (const LayerShape& shape : shapes) bytes = std::max(bytes, shape.elements() * 2);
  Pool pool(bytes);
  pool.fill(DType::kBf16);
  sink(fmt::format("{}\n{}, {}\nlinear layers with bf16 weights, {}\n\n", build_summary(),
                   cpu_model(), date_today(),
                   options.hot ? "hot" : fmt::format("cold: from {} MiB", bytes >> 20)));
  ExitCode code = ExitCode::kDone;
  for (const kernels::HostBackend* backend : backends) {
    for (const std::int64_t wide : threads_list) {
      const int threads = static_cast<int>(wide);
      const double reads = measure_memory(pool, threads);
      const double products = measure_products(*backend, DType::kFp16, threads);
      sink(
          fmt::format("{}, {} thread(s): reads {:.1f} GB/s, multiplies fp32 at {:.0f} GFLOP/s\n"
                      "| layers | rows | us | GB/s | of reads | GFLOP/s | of fp32 | check |\n"
                      "|---|---|---|---|---|---|---|---|\n",
                      backend->name(), threads, 1e-9 * reads, 1e-9 * products));
      for (const LayerShape& shape : shapes) {
        for (const std::int64_t rows : rows_list) {
          std::vector<std::unique_ptr<Contender>> one;
          one.push_back(std::make_unique<LinearContender>(shape, rows, threads, *backend, pool));
          const double seconds = measure(one, options.repeats)[0].median();
          const kernels::Comparison check = one[0]->check();
          if (!check.pass) code = ExitCode::kVerificationFailed;
          const auto elements = static_cast<double>(shape.elements());
          const double rate = 2 * elements / seconds;
          const double flops = rate * static_cast<double>(rows);
          sink(fmt::format("| {} | {} | {:.1f} | {:.1f} | {:.0f}% | {:.1f} | {:.0f}% | {} |\n",
                           to_string(shape), rows, 1e6 * seconds, 1e-9 * rate, 100 * rate / reads,
                           1e-9 * flops, 100 * flops / products,
                           check.pass ? "right" : kernels::to_string(check)));
        }
      }
    }
  }
  return code;
}

}  // namespace mla::launch::bench
