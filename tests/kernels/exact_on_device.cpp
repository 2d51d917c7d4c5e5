#include "tests/kernels/exact_on_device.h"

#include <algorithm>

#include "tests/kernels/device_compare.h"
#include "tests/kernels/device_oracle.h"

namespace mla::test {

using namespace kernels::cuda;

ExactOnDevice::ExactOnDevice(const DeviceProblem& problem) : problem_(problem) {
  const MlaShape& shape = problem.layout().spec().shape;
  const std::int64_t rows = problem.layout().total_queries() * shape.h_q;
  out_ = DeviceBuffer(rows * shape.d_v * 8, "the oracle's out");
  lse_ = DeviceBuffer(rows * 8, "the oracle's lse");

  std::vector<OracleItem> items;
  OracleSizes sizes;
  std::int64_t scores = 0;
  for (const DeviceItem& item : problem.items()) {
    items.push_back({item, scores});
    scores += item.rows.size() * item.context_len;
    sizes.items += 1;
    sizes.most_rows = std::max(sizes.most_rows, item.rows.size());
    sizes.most_tokens = std::max(sizes.most_tokens, item.context_len);
  }
  const Stream& stream = problem.stream();
  const DeviceBuffer of_items(std::ssize(items) * std::int64_t{sizeof(OracleItem)}, "items");
  const DeviceBuffer of_scores(scores * 8, "scores");
  stream.upload(of_items.data(), items.data(), of_items.bytes());
  check_cuda(
      launch_oracle(problem.args(true), of_items.as<const OracleItem>(), sizes,
                    {of_scores.as<double>(), out_.as<double>(), lse_.as<double>()}, stream.get()),
      "launch_oracle");
  stream.synchronise();
}

kernels::Comparison ExactOnDevice::compare() const {
  const DecodeArgs args = problem_.args(true);
  return compare_on_device(
      {static_cast<const float*>(args.out), out_.as<const double>(), out_.bytes() / 8},
      {args.lse, lse_.as<const double>(), lse_.bytes() / 8}, problem_.stream());
}

ExactResults ExactOnDevice::download() const {
  return {test::download<double>(problem_.stream(), out_.data(), out_.bytes() / 8),
          test::download<double>(problem_.stream(), lse_.data(), lse_.bytes() / 8)};
}

}  // namespace mla::test
