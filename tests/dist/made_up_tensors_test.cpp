#include "dist/made_up_tensors.h"

#include <cstring>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace mla::dist {
namespace {

Batch batch_of(std::vector<std::int64_t> context_lens) {
  Batch batch;
  batch.shape = {.h_q = 4, .h_kv = 1, .d_qk = 64, .d_v = 32};
  for (const std::int64_t context_len : context_lens) {
    Request request;
    request.context_len = context_len;
    request.query_len = 1 + std::ssize(batch.requests);
    batch.requests.push_back(request);
  }
  return batch;
}

TEST(MadeUpTensors, GiveEveryBlockAPageOfItsOwn) {
  const Batch batch = batch_of({1500, 700});
  const std::vector<Piece> pieces{{0, {0, 2}, {1, 3}}, {0, {2, 4}, {1, 3}}, {1, {1, 4}, {0, 2}}};
  const MadeUpTensors tensors(batch, pieces);
  ASSERT_EQ(tensors.inputs().pieces.size(), pieces.size());
  std::set<std::int32_t> pages;
  std::int64_t blocks = 0;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const kernels::PieceInputs& inputs = tensors.inputs().pieces[p];
    const Range range = blocks_of(batch, batch.requests[pieces[p].request], pieces[p].chunks);
    blocks += range.size();
    pages.insert(inputs.block_table + range.begin, inputs.block_table + range.end);
    EXPECT_EQ(inputs.first_head, pieces[p].heads.begin);
    EXPECT_NE(inputs.q[(batch.requests[pieces[p].request].query_len - 1) * inputs.q_token_stride],
              0);
  }
  EXPECT_EQ(std::ssize(pages), blocks);
  EXPECT_EQ(*pages.begin(), 0);
  EXPECT_EQ(*pages.rbegin(), blocks - 1);
}

TEST(MadeUpTensors, UsePagesAgainBeyondTheMostThatTheyHold) {
  const std::int64_t row_bytes = 64 * 2;
  const std::int64_t most_tokens = MadeUpTensors::kMostCacheBytes / row_bytes;
  const Batch batch = batch_of({most_tokens + 640});
  const std::vector<Piece> pieces{{0, {0, 4}, {0, batch.num_chunks(batch.requests[0])}}};
  const MadeUpTensors tensors(batch, pieces);
  const KvView& kv = tensors.inputs().kv;
  const std::int32_t* const table = tensors.inputs().pieces[0].block_table;
  EXPECT_EQ(kv.row(table, 0, 0), kv.row(table, most_tokens, 0));
  EXPECT_EQ(std::memcmp(kv.row(table, 5, 0), kv.row(table, most_tokens - 59, 0), row_bytes), 0);
}

}  // namespace
}  // namespace mla::dist
