#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "core/result_builder.h"
#include "kernels/local_decode.h"
#include "kernels/projected_decode.h"
#include "tests/kernels/c_call.h"
#include "tests/kernels/linear_problem.h"
#include "tests/support/generated_problem.h"
#include "tests/support/runner.h"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// Kept out of line: where GCC inlines only one of a pair it takes malloc and free for mismatched.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace mla::test {
namespace {

TEST(Decode, AllocatesNothing) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    const Problem problem({.shape = {16, 1, 80, 64}, .dtype = dtype, .requests = {{2, 3000}}});
    const kernels::DecodeParams params = problem.params(0, 0, {0, 32});
    const Range chunks{0, params.num_chunks()};
    for (const kernels::HostBackend* backend : usable_backends()) {
      const AlignedBytes workspace(
          backend->workspace_bytes(params.shape, params.chunk_tokens, params.context_len));
      std::vector<float> nodes(partial_floats(32, 64));
      const long before = allocations;
      backend->decode(params, chunks, nodes.data(), workspace.span());
      EXPECT_EQ(allocations, before) << backend->name();
    }
  }
}

TEST(DecodeProjected, AllocatesNothing) {
  const Problem problem({.shape = {16, 1, 80, 64}, .requests = {{2, 300}}});
  const kernels::DecodeParams params = problem.params(0, 0, {0, 32});
  Batch batch;
  batch.shape = params.shape;
  batch.requests.resize(1);
  batch.requests[0].query_len = 2;
  batch.requests[0].context_len = 300;
  const std::vector<std::uint16_t> elements(16 * 32 * 64);  // for the weights and the queries
  const auto w_uk = kernels::w_uk_of_kv_b_proj(elements.data(), DType::kBf16, 16, 16, 16, 64);
  const auto w_uv = kernels::w_uv_of_kv_b_proj(elements.data(), DType::kBf16, 16, 16, 16, 64);
  const kernels::ProjectedPlan plan = kernels::make_projected_plan(batch, {16, 16}, 1);
  const kernels::ProjectedInputs inputs{params.kv,
                                        {&params.block_table, 1},
                                        {elements.data(), 256, 16, elements.data(), 256, 16, 16}};
  std::vector<std::uint16_t> out(2 * 16 * 16);
  std::vector<float> lse(2 * 16);
  for (const kernels::HostBackend* backend : usable_backends()) {
    const kernels::PackedProjections weights(*backend, w_uk, w_uv);
    const AlignedBytes workspace(
        kernels::projected_workspace_bytes(batch, plan, weights, *backend));
    const long before = allocations;
    kernels::decode_projected(batch, plan, weights, *backend, inputs, {out.data(), lse.data()},
                              workspace.span());
    EXPECT_EQ(allocations, before) << backend->name();
  }
}

TEST(LinearLayers, AllocateNothing) {
  const LinearProblem problem({WeightType::kBf16, 20, 40, 70});
  for (const kernels::HostBackend* backend : usable_backends()) {
    const AlignedBytes workspace(kernels::linear_workspace_bytes(*backend, 70, 20, 1));
    std::vector<float> y(20 * 40);
    kernels::LinearParams params = problem.params({0, 20}, {0, 40});
    params.y = y.data();
    params.y_stride = 40;
    for (const int threads : {1, 3}) {
      const long before = allocations;
      kernels::linear(*backend, params, threads, workspace.span());
      EXPECT_EQ(allocations, before) << backend->name() << ", " << threads << " threads";
    }
  }
}

TEST(LocalDecoder, AllocatesNothingInARun) {
  const GeneratedProblem problem({128, 1, 40, 32}, {{1, 1000}, {1, 64}, {1, 150}, {1, 3000}});
  for (const int ranks : {1, 2}) {
    const Partition partition = make_partition(problem.batch(), {ShardMode::Kind::kKv}, ranks);
    const auto pieces = partition.pieces_of(0);
    const kernels::RankInputs inputs = problem.inputs(pieces);
    for (const int threads : {1, 3, 16}) {
      const SplitPlan plan = make_split_plan(problem.batch(), pieces, threads);
      kernels::LocalDecoder decoder(problem.batch(), plan, kernels::find_host_backend("auto"));
      ResultBuilder results(problem.batch(), partition, 0);
      const long before = allocations;
      decoder.run(inputs, results);
      EXPECT_EQ(allocations, before) << threads << " threads, " << ranks << " ranks";
    }
  }
}

TEST(CInterface, AllocatesNothingInARun) {
  const Problem problem({.shape = {16, 1, 80, 64}, .requests = {{2, 3000}, {1, 0}, {1, 700}}});
  CCall call(problem);
  for (const std::int32_t threads : {1, 3}) {
    call.spec.threads = threads;
    const CPlan plan(best_host_backend(), call.spec);
    ASSERT_EQ(plan.status(), MLA_OK) << mla_last_error();
    const long before = allocations;
    const mla_status status = mla_plan_run(plan.get(), &call.operands, nullptr);
    EXPECT_EQ(allocations, before) << threads << " threads";
    EXPECT_EQ(status, MLA_OK) << mla_last_error();
  }
}

TEST(Decode, RaisesTheProgressCounterOncePerChunk) {
  const Problem problem({.shape = {4, 1, 80, 64}, .requests = {{1, 3000}}});
  for (const kernels::HostBackend* backend : usable_backends()) {
    kernels::DecodeParams params = problem.params(0, 0, {0, 4});
    std::atomic<std::int64_t> done{0};
    params.chunks_done = &done;
    decode_nodes(*backend, params, {1, 4});
    EXPECT_EQ(done, 3) << backend->name();
  }
}

}  // namespace
}  // namespace mla::test
