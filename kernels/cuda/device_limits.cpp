#include "kernels/cuda/device_limits.h"

#include <algorithm>
#include <functional>

#include "kernels/cuda/limit_kernels.h"

namespace mla::kernels::cuda {
namespace {

constexpr int kAttempts = 10;

/// The least time that what `enqueue` enqueues takes.
double best_seconds(const Stream& stream, const std::function<void()>& enqueue) {
  Event begin;
  Event end;
  double best = 0;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    begin.record(stream);
    enqueue();
    end.record(stream);
    end.synchronise();
    const double seconds = end.seconds_since(begin);
    best = attempt == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

}  // namespace

ProductRate measure_products(std::string_view backend, DType dtype, const Stream& stream) {
  const DeviceBuffer sink(sizeof(float), "a float");
  const bool tensor_cores = backend == "sm90";
  const double flops = tensor_cores ? 4e12 : 0.3e12;
  double done = 0;
  const double seconds = best_seconds(stream, [&] {
    if (tensor_cores) {
      check_cuda(enqueue_tensor_products(dtype == DType::kBf16, flops, done, sink.as<float>(),
                                         stream.get()),
                 "tensor products");
    } else {
      check_cuda(enqueue_fp32_products(flops, done, sink.as<float>(), stream.get()),
                 "fp32 products");
    }
  });
  return {tensor_cores ? "wgmma 64x256x16 out of shared memory" : "fp32 FMA", done / seconds};
}

double measure_reads(const DeviceBuffer& data, const Stream& stream) {
  constexpr int kPasses = 4;  // so that the launch does not count
  const DeviceBuffer sink(sizeof(float), "a float");
  const double seconds = best_seconds(stream, [&] {
    for (int pass = 0; pass < kPasses; ++pass) {
      check_cuda(enqueue_read(data.data(), data.bytes(), sink.as<float>(), stream.get()), "reads");
    }
  });
  return kPasses * static_cast<double>(data.bytes()) / seconds;
}

}  // namespace mla::kernels::cuda
