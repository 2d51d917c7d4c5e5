#include <algorithm>
#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/batch_file.h"
#include "proto/result_file.h"
#include "proto/shard_data.h"

namespace mla::proto {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(MLA_SOURCE_DIR) / "launch/demo";

float value(const std::uint16_t* element) {
  return to_float(Bf16{*element});
}

/// Compares expected results of request `r` with attention computed here in double, naively: the
/// lse of every head and the outputs of the first.
void compare_request(const Batch& batch, const ShardData& shard, std::int64_t r,
                     const Result& expected) {
  const Request& request = batch.requests[r];
  const MlaShape& shape = batch.shape;
  const QueryView q = shard.query(r);
  const auto* out = reinterpret_cast<const float*>(expected.out.data());
  for (std::int64_t row = 0; row < request.query_len * shape.h_q; ++row) {
    const std::int64_t j = row / shape.h_q;
    const std::int64_t h = row % shape.h_q;
    const std::int64_t visible = request.context_len - (request.query_len - 1 - j);
    std::vector<double> o(shape.d_v, 0);
    double l = 0;
    for (std::int64_t k = 0; k < visible; ++k) {
      const std::uint16_t* key = shard.kv().row(shard.block_table(r), k, 0);
      double score = 0;
      for (std::int64_t d = 0; d < shape.d_qk; ++d) {
        score += static_cast<double>(value(q.data + j * q.token_stride + h * q.head_stride + d)) *
                 static_cast<double>(value(key + d));
      }
      const double weight = std::exp(score * batch.softmax_scale);
      l += weight;
      if (h > 0) continue;
      for (std::int64_t d = 0; d < shape.d_v; ++d)
        o[d] += weight * static_cast<double>(value(key + d));
    }
    EXPECT_NEAR(static_cast<double>(expected.lse[row]), std::log(l), 1e-5);
    for (std::int64_t d = 0; h == 0 && d < shape.d_v; ++d) {
      EXPECT_NEAR(static_cast<double>(out[row * shape.d_v + d]), o[d] / l, 1e-5);
    }
  }
}

TEST(Demo, MatchesItsExpectedResults) {
  const Batch batch = read_batch(kFolder / "shakespeare.batch.txtpb");
  validate(batch, ValidateFor::kDecoding);
  check_sources(batch, kFolder);
  const ResultSet expected = read_results(kFolder / "shakespeare.expected.safetensors");
  ASSERT_EQ(expected.results.size(), batch.requests.size());
  std::vector<Piece> pieces;
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    pieces.push_back({static_cast<std::int64_t>(r),
                      {0, batch.shape.h_q},
                      {0, batch.num_chunks(batch.requests[r])}});
  }
  const ShardData shard(batch, kFolder, pieces, 1);
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    const Result* result = expected.find(batch.requests[r].custom_id);
    ASSERT_NE(result, nullptr);
    compare_request(batch, shard, static_cast<std::int64_t>(r), *result);
  }
}

TEST(Demo, PoisonsWhatMustNotBeRead) {
  const Batch batch = read_batch(kFolder / "shakespeare.batch.txtpb");
  const Request& first = batch.requests.front();
  EXPECT_GT(static_cast<std::int64_t>(first.block_table.size()), batch.num_blocks(first));
  EXPECT_THAT(first.block_table, testing::Contains(2147480000));
  const std::vector<Piece> pieces{{0, {0, 1}, {0, batch.num_chunks(first)}}};
  const ShardData shard(batch, kFolder, pieces, 1);
  ASSERT_NE(first.context_len % batch.page_block_size, 0);
  EXPECT_TRUE(std::isnan(value(shard.kv().row(shard.block_table(0), first.context_len, 0))));
}

}  // namespace
}  // namespace mla::proto
