#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/batch_file.h"
#include "proto/shard_data.h"

// What the batch's results must be, demo_bits_test.cpp compares with those of every backend.
namespace mla::proto {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(MLA_SOURCE_DIR) / "launch/demo";

TEST(Demo, PoisonsWhatMustNotBeRead) {
  const Batch batch = read_batch(kFolder / "shakespeare.batch.txtpb");
  const Request& first = batch.requests.front();
  EXPECT_GT(static_cast<std::int64_t>(first.block_table.size()), batch.num_blocks(first));
  EXPECT_THAT(first.block_table, testing::Contains(2147480000));
  const std::vector<Piece> pieces{{0, {0, 1}, {0, batch.num_chunks(first)}}};
  const ShardData shard(batch, kFolder, pieces, 1);
  ASSERT_NE(first.context_len % batch.page_block_size, 0);
  const std::uint16_t* const past_the_end =
      shard.kv().row(shard.block_table(0), first.context_len, 0);
  EXPECT_TRUE(std::isnan(to_float(Bf16{*past_the_end})));
}

}  // namespace
}  // namespace mla::proto
