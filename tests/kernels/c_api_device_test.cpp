// The C interface on a GPU. Where there is none, the tests skip and say so.

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/runtime.h"
#include "tests/kernels/c_call.h"

namespace mla::test {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::Graph;
using kernels::cuda::Stream;

/// A call whose tensors are in the memory of the GPU.
class DeviceCall {
 public:
  static constexpr std::int64_t kGap = 8;  // rows begin at multiples of 16 bytes

  DeviceCall(const Problem& problem, std::int32_t out_dtype, const Stream& stream)
      : call(problem, out_dtype, kGap),
        stream_(stream),
        q_(upload(problem.q().data(), 2 * std::ssize(problem.q()))),
        kv_(upload(problem.kv().data(), 2 * std::ssize(problem.kv()))),
        tables_(
            upload(call.operands.block_tables, 4 * call.spec.batch * call.spec.block_table_stride)),
        out_(upload(call.out.data(), std::ssize(call.out))),
        lse_(upload(call.lse.data(), 4 * std::ssize(call.lse))) {
    call.operands.q = q_.data();
    call.operands.kv = kv_.data();
    call.operands.num_pages = std::ssize(problem.kv()) / call.spec.kv_page_stride;
    call.operands.block_tables = tables_.as<const std::int32_t>();
    call.operands.out = out_.data();
    call.operands.lse = lse_.as<float>();
  }

  void poison() const {
    stream_.fill(out_.data(), std::byte{0xff}, out_.bytes());
    stream_.fill(lse_.data(), std::byte{0xff}, lse_.bytes());
  }

  const CCall& downloaded() {
    stream_.download(call.out.data(), out_.data(), out_.bytes());
    stream_.download(call.lse.data(), lse_.data(), lse_.bytes());
    stream_.synchronise();
    return call;
  }

  CCall call;

 private:
  DeviceBuffer upload(const void* from, std::int64_t bytes) const {
    DeviceBuffer buffer(bytes, "a tensor");
    stream_.upload(buffer.data(), from, bytes);
    stream_.synchronise();
    return buffer;
  }

  const Stream& stream_;
  DeviceBuffer q_;
  DeviceBuffer kv_;
  DeviceBuffer tables_;
  DeviceBuffer out_;
  DeviceBuffer lse_;
};

class CInterfaceOnAGpu : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (mla_backend_check(GetParam()) != MLA_OK) GTEST_SKIP() << mla_last_error();
    kernels::cuda::use_device(0);
  }
};

TEST_P(CInterfaceOnAGpu, RunsAPlanAndReplaysIt) {
  const Problem problem(
      {.shape = {16, 1, 576, 512}, .requests = {{1, 3000}, {3, 65}, {2, 0}, {5, 2}, {1, 700}}});
  const ExactResults exact = run_oracle(problem);
  const Stream stream;
  for (const std::int32_t combine : {MLA_EXACT, MLA_FAST}) {
    for (const std::int32_t out_dtype : {0, static_cast<int>(MLA_FP32)}) {
      DeviceCall device(problem, out_dtype, stream);
      device.call.spec.combine = combine;
      mla_plan* plan = nullptr;
      ASSERT_EQ(mla_plan_create(GetParam(), &device.call.spec, &plan), MLA_OK) << mla_last_error();
      std::int64_t bytes = 0;
      ASSERT_EQ(mla_plan_workspace_bytes(plan, nullptr, &bytes), MLA_OK);
      const DeviceBuffer workspace(bytes, "the workspace");
      ASSERT_EQ(mla_plan_bind(plan, nullptr, workspace.data(), stream.get()), MLA_OK)
          << mla_last_error();
      ASSERT_EQ(mla_plan_run(plan, &device.call.operands, stream.get()), MLA_OK)
          << mla_last_error();
      const auto out = device.downloaded().out;
      const kernels::Comparison comparison = compare_results(device.call.results(), exact);
      EXPECT_TRUE(comparison.pass) << kernels::to_string(comparison);
      EXPECT_EQ(device.call.written(), problem.total_queries() * 16 * (512 + 1));

      const Graph graph(stream, [&] {
        EXPECT_EQ(mla_plan_run(plan, &device.call.operands, stream.get()), MLA_OK)
            << mla_last_error();
      });
      device.poison();
      for (int replay = 0; replay < 3; ++replay) graph.launch(stream);
      EXPECT_EQ(device.downloaded().out, out) << "a replay gives the same bits";
      mla_plan_destroy(plan);
    }
  }
}

TEST_P(CInterfaceOnAGpu, SaysWhichGpuIsNotThere) {
  const Problem problem({.shape = {16, 1, 576, 512}, .requests = {{1, 100}}});
  CCall call(problem, 0, DeviceCall::kGap);
  call.spec.device = 99;
  mla_plan* plan = nullptr;
  EXPECT_EQ(mla_plan_create(GetParam(), &call.spec, &plan), MLA_UNSUPPORTED);
  EXPECT_THAT(mla_last_error(), testing::HasSubstr("device: 99; expected a GPU that is there"));
}

INSTANTIATE_TEST_SUITE_P(Backends, CInterfaceOnAGpu, testing::Values("sm90", "simt"),
                         [](const auto& name) { return std::string(name.param); });

}  // namespace
}  // namespace mla::test
