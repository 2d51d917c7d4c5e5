#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/build_info.h"
#include "tests/kernels/c_call.h"

extern "C" int mla_test_from_c(const char* backend);

namespace mla::test {
namespace {

using testing::HasSubstr;
using testing::StrEq;

ProblemSpec ragged_spec() {
  return {.shape = {6, 2, 80, 64},
          .page_block_size = 16,
          .chunk_tokens = 64,
          .requests = {{1, 700}, {3, 65}, {2, 0}, {5, 2}, {1, 130}},
          .token_padding = 8,
          .q_padding = 16};
}

/// The backends that take part in the C interface: those of the tests are not in its library.
std::vector<std::string> backends_of_c() {
  std::vector<std::string> names;
  for (const kernels::HostBackend* backend : usable_backends()) {
    std::string name(backend->name());
    if (mla_backend_check(name.c_str()) == MLA_OK) names.push_back(std::move(name));
  }
  return names;
}

TEST(CInterface, AgreesWithTheOracleOnEveryBackend) {
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    ProblemSpec spec = ragged_spec();
    spec.dtype = dtype;
    const Problem problem(spec);
    const ExactResults exact = run_oracle(problem);
    for (const std::string& backend : backends_of_c()) {
      for (const std::int32_t out_dtype : {0, static_cast<int>(MLA_FP32)}) {
        CCall call(problem, out_dtype);
        const CPlan plan(backend, call.spec);
        ASSERT_EQ(plan.status(), MLA_OK) << mla_last_error();
        EXPECT_THAT(mla_plan_backend(plan.get()), StrEq(backend));
        ASSERT_EQ(mla_plan_run(plan.get(), &call.operands, nullptr), MLA_OK) << mla_last_error();
        const kernels::Comparison comparison = compare_results(call.results(), exact);
        EXPECT_TRUE(comparison.pass) << backend << ": " << kernels::to_string(comparison);
        EXPECT_EQ(call.written(), problem.total_queries() * call.spec.h_q * (call.spec.d_v + 1))
            << "no more and no less than the results";
      }
    }
  }
}

TEST(CInterface, RunsAPlanForLayerAfterLayer) {
  ProblemSpec spec = ragged_spec();
  const Problem first(spec);
  spec.seed = 2;
  const Problem second(spec);
  CCall calls[] = {CCall(first), CCall(second), CCall(first)};
  const CPlan plan(best_host_backend(), calls[0].spec);
  for (CCall& call : calls) {
    ASSERT_EQ(mla_plan_run(plan.get(), &call.operands, nullptr), MLA_OK) << mla_last_error();
  }
  EXPECT_EQ(calls[0].out, calls[2].out);
  EXPECT_NE(calls[0].out, calls[1].out);
  EXPECT_TRUE(compare_results(calls[1].results(), run_oracle(second)).pass);
}

TEST(CInterface, TakesZeroForStridesWithoutGaps) {
  const Problem problem({.shape = {4, 1, 80, 64}, .requests = {{1, 100}, {2, 300}}});
  CCall call(problem);
  mla_plan_spec& spec = call.spec;
  spec.q_token_stride = spec.q_head_stride = 0;
  spec.kv_page_stride = spec.kv_token_stride = spec.kv_head_stride = 0;
  spec.out_token_stride = spec.out_head_stride = 0;
  spec.lse_token_stride = spec.lse_head_stride = 0;
  const CPlan plan("portable", spec);
  ASSERT_EQ(mla_plan_run(plan.get(), &call.operands, nullptr), MLA_OK) << mla_last_error();
  spec.out_head_stride = 64;
  spec.out_token_stride = 4 * 64;
  spec.lse_head_stride = 1;
  spec.lse_token_stride = 4;
  EXPECT_TRUE(compare_results(call.results(), run_oracle(problem)).pass);
}

TEST(CInterface, GivesTheSameBitsInAnyCompanyAndOnAnyThreads) {
  ProblemSpec spec = ragged_spec();
  const Problem problem(spec);
  CCall many(problem, MLA_FP32);
  CCall few(problem, MLA_FP32);
  few.spec.batch = 2;
  few.spec.threads = 1;
  const CPlan plan_of_many(best_host_backend(), many.spec);
  const CPlan plan_of_few(best_host_backend(), few.spec);
  ASSERT_EQ(mla_plan_run(plan_of_many.get(), &many.operands, nullptr), MLA_OK);
  ASSERT_EQ(mla_plan_run(plan_of_few.get(), &few.operands, nullptr), MLA_OK);
  const std::int64_t bytes = 4 * 4 * few.spec.out_token_stride;
  EXPECT_TRUE(std::equal(few.out.begin(), few.out.begin() + bytes, many.out.begin()));
}

TEST(CInterface, SaysWhatIsWrongWithASpec) {
  const Problem problem(ragged_spec());
  const auto refusal = [&](auto change) {
    CCall call(problem);
    change(call.spec);
    mla_plan* plan = reinterpret_cast<mla_plan*>(&call);
    EXPECT_EQ(mla_plan_create("portable", &call.spec, &plan), MLA_INVALID_ARGUMENT);
    EXPECT_EQ(plan, nullptr);
    return std::string(mla_last_error());
  };
  using Spec = mla_plan_spec;
  const std::int32_t negative[] = {5, -1, 0, 0, 0};
  const std::int32_t backwards[] = {0, 4, 4, 5, 6, 7};
  const std::int32_t late[] = {1, 2, 3, 4, 5, 6};
  EXPECT_THAT(refusal([](Spec& s) { s.struct_size = 8; }), HasSubstr("spec.struct_size: 8;"));
  EXPECT_EQ(refusal([](Spec& s) { s.batch = 0; }), "batch: 0; expected 1 to 2147483648");
  EXPECT_EQ(refusal([](Spec& s) { s.seqlens_k = nullptr; }), "seqlens_k: null; expected a pointer");
  EXPECT_EQ(refusal([&](Spec& s) { s.seqlens_k = negative; }),
            "seqlens_k[1]: -1; expected 0 or more");
  EXPECT_EQ(refusal([&](Spec& s) { s.q_offsets = backwards; }),
            "q_offsets[2]: 4; expected more than q_offsets[1], which is 4");
  EXPECT_EQ(refusal([&](Spec& s) { s.q_offsets = late; }), "q_offsets[0]: 1; expected 0 to 0");
  EXPECT_THAT(refusal([](Spec& s) { s.h_kv = 4; }), HasSubstr("h_kv: 4; expected a divisor"));
  EXPECT_THAT(refusal([](Spec& s) { s.d_v = 20; }), HasSubstr("d_v: 20;"));
  EXPECT_THAT(refusal([](Spec& s) { s.d_qk = 0; }), HasSubstr("d_qk: 0;"));
  EXPECT_EQ(refusal([](Spec& s) { s.dtype = 0; }), "dtype: 0; expected 1 to 3");
  EXPECT_THAT(refusal([](Spec& s) { s.dtype = MLA_FP32; }), HasSubstr("dtype: fp32;"));
  EXPECT_THAT(refusal([](Spec& s) { s.out_dtype = MLA_FP16; }), HasSubstr("out_dtype: fp16;"));
  EXPECT_THAT(refusal([](Spec& s) { s.page_block_size = 0; }), HasSubstr("page_block_size: 0;"));
  EXPECT_THAT(refusal([](Spec& s) { s.chunk_tokens = 65; }), HasSubstr("chunk_tokens: 65;"));
  EXPECT_THAT(refusal([](Spec& s) { s.softmax_scale = -1; }), HasSubstr("softmax_scale: -1"));
  EXPECT_EQ(refusal([](Spec& s) { s.causal = 2; }), "causal: 2; expected 0 to 1");
  EXPECT_EQ(refusal([](Spec& s) { s.combine = 2; }), "combine: 2; expected 0 to 1");
  EXPECT_EQ(refusal([](Spec& s) { s.threads = -1; }), "threads: -1; expected 0 to 4096");
  EXPECT_THAT(refusal([](Spec& s) { s.out_head_stride = 63; }), HasSubstr("out_head_stride: 63;"));
  EXPECT_THAT(refusal([](Spec& s) { s.block_table_stride = 43; }),
              HasSubstr("block_table_stride: 43; expected 44 to"));
  EXPECT_THAT(refusal([](Spec& s) { s.q_head_stride = -80; }), HasSubstr("q_head_stride: -80;"));
}

TEST(CInterface, SaysWhatIsWrongWithOperands) {
  const Problem problem(ragged_spec());
  const auto refusal = [&](auto change) {
    CCall call(problem);
    const CPlan plan("portable", call.spec);
    change(call.operands);
    EXPECT_EQ(mla_plan_run(plan.get(), &call.operands, nullptr), MLA_INVALID_ARGUMENT);
    EXPECT_EQ(call.written(), 0);
    return std::string(mla_last_error());
  };
  using Operands = mla_operands;
  const std::vector<std::int32_t> tables(5 * 46, -7);
  EXPECT_THAT(refusal([](Operands& o) { o.struct_size = 0; }), HasSubstr("struct_size: 0;"));
  EXPECT_EQ(refusal([](Operands& o) { o.q = nullptr; }), "q: null; expected a pointer");
  EXPECT_EQ(refusal([](Operands& o) { o.kv = nullptr; }), "kv: null; expected a pointer");
  EXPECT_EQ(refusal([](Operands& o) { o.lse = nullptr; }), "lse: null; expected a pointer");
  EXPECT_THAT(refusal([](Operands& o) { o.num_pages = 0; }), HasSubstr("num_pages: 0;"));
  EXPECT_EQ(refusal([&](Operands& o) { o.block_tables = tables.data(); }),
            "block_tables[0][0]: -7; expected at least 0 and below num_pages, 2147483647");
}

TEST(CInterface, SaysWhatIsWrongWithACall) {
  const Problem problem(ragged_spec());
  CCall call(problem);
  mla_plan* plan = nullptr;
  EXPECT_EQ(mla_plan_create("abacus", &call.spec, &plan), MLA_INVALID_ARGUMENT);
  EXPECT_THAT(mla_last_error(), HasSubstr("abacus; expected one of auto"));
  EXPECT_EQ(mla_plan_create("portable", nullptr, &plan), MLA_INVALID_ARGUMENT);
  EXPECT_EQ(mla_plan_create("portable", &call.spec, nullptr), MLA_INVALID_ARGUMENT);
  ASSERT_EQ(mla_plan_create("portable", &call.spec, &plan), MLA_OK);
  EXPECT_EQ(mla_plan_run(plan, &call.operands, nullptr), MLA_INVALID_ARGUMENT);
  EXPECT_THAT(mla_last_error(),
              StrEq("plan: not bound; expected mla_plan_bind to have been called"));
  EXPECT_EQ(mla_plan_bind(plan, nullptr, nullptr, nullptr), MLA_INVALID_ARGUMENT);
  EXPECT_EQ(mla_plan_bind(plan, reinterpret_cast<void*>(4097), nullptr, nullptr),
            MLA_INVALID_ARGUMENT);
  EXPECT_THAT(mla_last_error(), HasSubstr("host_workspace: "));
  EXPECT_EQ(mla_plan_run(nullptr, &call.operands, nullptr), MLA_INVALID_ARGUMENT);
  mla_plan_destroy(plan);
  mla_plan_destroy(nullptr);
}

TEST(CInterface, KeepsErrorsOfThreadsApart) {
  mla_backend_check("abacus");
  std::thread([] { EXPECT_THAT(mla_last_error(), StrEq("")); }).join();
  EXPECT_THAT(mla_last_error(), HasSubstr("abacus"));
}

TEST(CInterface, KnowsItsVersionAndBackends) {
  EXPECT_EQ(mla_version(), version());
  EXPECT_THAT(mla_backend_names(), HasSubstr("portable"));
  EXPECT_EQ(mla_backend_check("auto"), MLA_OK);
}

TEST(CInterface, ServesAProgramInC) {
  for (const std::string& backend : backends_of_c()) {
    EXPECT_EQ(mla_test_from_c(backend.c_str()), 0) << backend << ": " << mla_last_error();
  }
}

}  // namespace
}  // namespace mla::test
