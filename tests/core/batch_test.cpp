#include "core/batch.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/core/batches.h"

namespace mla {
namespace {

/// Three requests (one of no tokens) with private pages and generated tensors.
Batch good_batch() {
  Batch batch = test::planning_batch({200, 0, 64});
  test::add_private_pages(batch);
  batch.kv_cache = {.kind = TensorSource::Kind::kGenerated, .seed = 1};
  for (Request& request : batch.requests) {
    request.q = {.kind = TensorSource::Kind::kGenerated, .seed = 2};
  }
  return batch;
}

std::string verdict(const Batch& batch, ValidateFor purpose) {
  try {
    validate(batch, purpose);
    return "";
  } catch (const FormatError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    return error.what();
  }
}

struct Damage {
  std::function<void(Batch&)> inflict;
  const char* line;
};

void expect_lines(const std::vector<Damage>& damages, ValidateFor purpose) {
  for (const Damage& damage : damages) {
    Batch batch = good_batch();
    damage.inflict(batch);
    EXPECT_EQ(verdict(batch, purpose), damage.line);
  }
}

TEST(Validate, AcceptsAGoodBatch) {
  EXPECT_EQ(verdict(good_batch(), ValidateFor::kDecoding), "");
  EXPECT_EQ(verdict(good_batch(), ValidateFor::kPlanning), "");
}

TEST(Validate, AcceptsWhatIsUnusualButLegal) {
  const std::vector<std::function<void(Batch&)>> changes = {
      [](Batch& b) { b.requests[1].query_len = 7; },  // more queries than keys
      [](Batch& b) { b.out_dtype = DType::kFp32; },
      [](Batch& b) { b.dtype = b.out_dtype = DType::kFp16; },
      [](Batch& b) { b.requests[0].block_table.resize(100, 2147480000); },      // unused entries
      [](Batch& b) { b.requests[2].block_table = b.requests[0].block_table; },  // shared prefix
      [](Batch& b) { b.shape.d_qk = b.shape.d_v; },
      [](Batch& b) { b.shape.h_kv = b.shape.h_q; },
      [](Batch& b) { b.requests[0].custom_id = std::string(1024, 'x'); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    Batch batch = good_batch();
    changes[i](batch);
    EXPECT_EQ(verdict(batch, ValidateFor::kDecoding), "") << "change " << i;
  }
}

TEST(Validate, NamesTheWrongFieldOfTheHeader) {
  const double nan = std::nan("");
  expect_lines(
      {
          {[](Batch& b) { b.shape.h_q = 0; }, "shape.h_q: 0; expected 1 to 65536"},
          {[](Batch& b) { b.shape.h_q = 65537; }, "shape.h_q: 65537; expected 1 to 65536"},
          {[](Batch& b) { b.shape.h_kv = 0; }, "shape.h_kv: 0; expected 1 to 65536"},
          {[](Batch& b) { b.shape.h_kv = 3; },
           "shape.h_kv: 3; expected a divisor of h_q, which is 16"},
          {[](Batch& b) { b.shape.d_v = 0; }, "shape.d_v: 0; expected 16 to 65536"},
          {[](Batch& b) { b.shape.d_v = 40; }, "shape.d_v: 40; expected a multiple of 16"},
          {[](Batch& b) { b.shape.d_qk = 504; }, "shape.d_qk: 504; expected 512 to 65536"},
          {[](Batch& b) { b.shape.d_qk = 516; },
           "shape.d_qk: 516; expected d_v (512) plus a multiple of 8"},
          {[](Batch& b) { b.dtype = DType::kFp32; }, "dtype: fp32; expected bf16 or fp16"},
          {[](Batch& b) { b.out_dtype = DType::kFp16; },
           "out_dtype: fp16; expected bf16 (the batch's dtype) or fp32"},
          {[](Batch& b) { b.page_block_size = 0; }, "page_block_size: 0; expected 1 to 1048576"},
          {[](Batch& b) { b.num_pages = -1; }, "num_pages: -1; expected 0 to 2147483647"},
          {[](Batch& b) { b.num_pages = std::int64_t{1} << 31; },
           "num_pages: 2147483648; expected 0 to 2147483647"},
          {[](Batch& b) {
             b.page_block_size = 1 << 20;
             b.num_pages = 2000000;
           },
           "num_pages: 2000000; expected a pool of at most 2^50 elements, that is 1864135 pages"},
          {[](Batch& b) { b.chunk_tokens = 63; }, "chunk_tokens: 63; expected 64 to 1048576"},
          {[](Batch& b) { b.chunk_tokens = 65; }, "chunk_tokens: 65; expected a multiple of 64"},
          {[](Batch& b) { b.softmax_scale = 0; },
           "softmax_scale: 0.000000; expected a positive number up to 1e6"},
          {[](Batch& b) { b.softmax_scale = -1; },
           "softmax_scale: -1.000000; expected a positive number up to 1e6"},
          {[nan](Batch& b) { b.softmax_scale = nan; },
           "softmax_scale: nan; expected a positive number up to 1e6"},
          {[](Batch& b) { b.softmax_scale = HUGE_VAL; },
           "softmax_scale: inf; expected a positive number up to 1e6"},
      },
      ValidateFor::kPlanning);
}

TEST(Validate, NamesTheWrongFieldOfARequest) {
  expect_lines(
      {
          {[](Batch& b) { b.requests.clear(); }, "requests: 0; expected at least 1"},
          {[](Batch& b) { b.requests[0].custom_id = ""; },
           "requests[0].custom_id: 0 bytes; expected 1 to 1024"},
          {[](Batch& b) { b.requests[0].custom_id = std::string(1025, 'x'); },
           "requests[0].custom_id: 1025 bytes; expected 1 to 1024"},
          {[](Batch& b) { b.requests[2].custom_id = "request-0"; },
           "requests[2].custom_id: 'request-0'; expected an id that no earlier request has"},
          {[](Batch& b) { b.requests[1].query_len = 0; },
           "requests[1].query_len: 0; expected 1 to 1048576"},
          {[](Batch& b) { b.requests[1].context_len = -1; },
           "requests[1].context_len: -1; expected 0 to 1099511627776"},
          {[](Batch& b) { b.requests[1].context_len = (std::int64_t{1} << 40) + 1; },
           "requests[1].context_len: 1099511627777; expected 0 to 1099511627776"},
          {[](Batch& b) { b.requests[0].block_table.pop_back(); },
           "requests[0].block_table: 3 entries; expected at least 4 for context_len 200 in blocks "
           "of 64"},
          {[](Batch& b) { b.requests[0].block_table[3] = -1; },
           "requests[0].block_table[3]: -1; expected at least 0 and below num_pages, 5"},
          {[](Batch& b) { b.requests[2].block_table[0] = 5; },
           "requests[2].block_table[0]: 5; expected at least 0 and below num_pages, 5"},
      },
      ValidateFor::kPlanning);
}

TEST(Validate, NamesTheWrongTensor) {
  const auto inline_of = [](std::size_t bytes) {
    return TensorSource{.kind = TensorSource::Kind::kInline,
                        .bytes = std::vector<std::byte>(bytes)};
  };
  expect_lines(
      {
          {[](Batch& b) { b.requests[1].q = {}; },
           "requests[1].q: no source; expected safetensors, inline data or a generator"},
          {[](Batch& b) { b.kv_cache = {}; },
           "kv_cache: no source (this batch holds lengths only); expected safetensors, inline data "
           "or a generator"},
          {[&](Batch& b) { b.requests[0].q = inline_of(2); },
           "requests[0].q: 2 inline bytes; expected 18432"},
          {[&](Batch& b) { b.kv_cache = inline_of(0); },
           "kv_cache: 0 inline bytes; expected 368640"},
          {[](Batch& b) { b.requests[0].block_table.clear(); },
           "requests[0].block_table: 0 entries; expected at least 4 for context_len 200 in blocks "
           "of 64"},
      },
      ValidateFor::kDecoding);
}

TEST(Validate, PlanningNeedsNeitherTablesNorTensors) {
  const Batch batch = test::planning_batch({200, 0, 64});
  EXPECT_EQ(verdict(batch, ValidateFor::kPlanning), "");
  EXPECT_NE(verdict(batch, ValidateFor::kDecoding), "");
}

TEST(Batch, BlocksOfHoldExactlyTheTokensOfTheChunks) {
  for (const std::int64_t block : {1, 3, 16, 64, 65, 1000}) {
    Batch batch = test::planning_batch({1000});
    batch.page_block_size = block;
    const Request& request = batch.requests[0];
    for (std::int64_t begin = 0; begin < batch.num_chunks(request); ++begin) {
      for (std::int64_t end = begin + 1; end <= batch.num_chunks(request); ++end) {
        const std::int64_t last_token = std::min<std::int64_t>(end * 64, 1000) - 1;
        EXPECT_EQ(blocks_of(batch, request, {begin, end}),
                  (Range{begin * 64 / block, last_token / block + 1}));
      }
    }
    EXPECT_TRUE(blocks_of(batch, request, {2, 2}).empty());
  }
}

}  // namespace
}  // namespace mla
