#include "core/result_builder.h"

#include <cstring>

#include <gtest/gtest.h>

#include "tests/core/batches.h"
#include "tests/core/special_floats.h"

namespace mla {
namespace {

Batch small_batch(DType out_dtype) {
  Batch batch = test::planning_batch({100, 0}, 6);
  batch.shape.h_kv = 2;
  batch.shape.d_v = 32;
  batch.shape.d_qk = 40;
  batch.out_dtype = out_dtype;
  batch.requests[0].query_len = 2;
  return batch;
}

double element(const std::vector<std::byte>& bytes, DType dtype, std::int64_t index) {
  const std::byte* at = bytes.data() + index * size_of(dtype);
  if (dtype == DType::kFp32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  return static_cast<double>(to_float(dtype, bits));
}

/// Finishes every item that `rank` owns with out = 64 query + head, lse = 0.
std::vector<ResultSlice> built(const Batch& batch, const Partition& partition, int rank) {
  ResultBuilder builder(batch, partition, rank);
  for (const WorkItem& item : work_items(batch, partition.pieces)) {
    if (owners_of(partition, item.request, item.heads)[0].owner != rank) continue;
    std::vector<float> storage(partial_floats(item.rows.size(), batch.shape.d_v));
    const PartialView root = partial_at(storage.data(), item.rows.size(), batch.shape.d_v);
    for (std::int64_t r = 0; r < item.rows.size(); ++r) {
      const std::int64_t row = item.rows.begin + r;
      const std::int64_t value =
          64 * (row / item.heads.size()) + item.heads.begin + row % item.heads.size();
      root.m_log2[r] = -1;
      root.l[r] = 2;
      std::fill_n(root.o + r * batch.shape.d_v, batch.shape.d_v, 2 * static_cast<float>(value));
    }
    builder.finish(item, root);
  }
  return builder.take();
}

TEST(ResultBuilder, PutsEveryRowInItsPlace) {
  for (const DType dtype : {DType::kBf16, DType::kFp16, DType::kFp32}) {
    const Batch batch = small_batch(dtype);
    for (const ShardMode mode : {ShardMode{ShardMode::Kind::kKv}, {ShardMode::Kind::kHeads}}) {
      const Partition partition = make_partition(batch, mode, 3);
      std::int64_t rows = 0;
      for (int rank = 0; rank < 3; ++rank) {
        for (const ResultSlice& slice : built(batch, partition, rank)) {
          if (slice.request != 0) continue;
          for (std::int64_t j = 0; j < 2; ++j) {
            for (std::int64_t h = 0; h < slice.heads.size(); ++h, ++rows) {
              const std::int64_t row = j * slice.heads.size() + h;
              EXPECT_EQ(slice.lse[row], 0);
              for (const std::int64_t d : {0, 15, 16, 31}) {
                EXPECT_EQ(element(slice.out, dtype, row * 32 + d),
                          static_cast<double>(64 * j + slice.heads.begin + h));
              }
            }
          }
        }
      }
      EXPECT_EQ(rows, 2 * 6);
    }
  }
}

TEST(ResultBuilder, RowsThatNobodyFinishesSeeNoKey) {
  const Batch batch = small_batch(DType::kBf16);
  const Partition partition = make_partition(batch, {ShardMode::Kind::kKv}, 2);
  std::int64_t slices = 0;
  for (int rank = 0; rank < 2; ++rank) {
    for (const ResultSlice& slice : built(batch, partition, rank)) {
      if (slice.request != 1) continue;
      ++slices;
      EXPECT_EQ(slice.out, std::vector<std::byte>(6 * 32 * 2));
      EXPECT_EQ(slice.lse, std::vector<float>(6, kInf));
    }
  }
  EXPECT_EQ(slices, 1);
}

}  // namespace
}  // namespace mla
