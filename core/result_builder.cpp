#include "core/result_builder.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/every_cpu.h"

namespace mla {
namespace {

constexpr std::int64_t kBlock = 256;  // elements converted at a time

/// Writes o / l for one row in the dtype of the results.
MLA_FOR_EVERY_CPU
void store_row(const PartialView& root, std::int64_t row, DType dtype, std::byte* out) {
  float values[kBlock];
  std::uint16_t halves[kBlock];
  for (std::int64_t d = 0; d < root.d_v; d += kBlock) {
    const std::int64_t count = std::min(kBlock, root.d_v - d);
    finalize_out(root, row, {d, d + count}, values);
    if (dtype == DType::kFp32) {
      std::memcpy(out + d * 4, values, count * sizeof *values);
      continue;
    }
    if (dtype == DType::kBf16) {
      for (std::int64_t i = 0; i < count; ++i) halves[i] = to_bf16(values[i]).bits;
    } else {
      for (std::int64_t i = 0; i < count; ++i) halves[i] = to_fp16(values[i]).bits;
    }
    std::memcpy(out + d * 2, halves, count * sizeof *halves);
  }
}

}  // namespace

ResultBuilder::ResultBuilder(const Batch& batch, const Partition& partition, int rank)
    : batch_(batch) {
  for (const Ownership& o : partition.ownerships) {
    if (o.owner != rank) continue;
    const std::int64_t rows = batch.requests[o.request].query_len * o.heads.size();
    slices_.push_back(
        {.request = o.request,
         .heads = o.heads,
         .out = std::vector<std::byte>(rows * batch.shape.d_v * size_of(batch.out_dtype)),
         .lse = std::vector<float>(rows, std::numeric_limits<float>::infinity())});
  }
}

void ResultBuilder::finish(const WorkItem& item, const PartialView& root) {
  ResultSlice& slice = slice_of(item);
  const std::int64_t row_bytes = batch_.shape.d_v * size_of(batch_.out_dtype);
  for (std::int64_t r = 0; r < item.rows.size(); ++r) {
    const std::int64_t row = item.rows.begin + r;
    const std::int64_t token = row / item.heads.size();
    const std::int64_t head = item.heads.begin + row % item.heads.size() - slice.heads.begin;
    const std::int64_t place = token * slice.heads.size() + head;
    slice.lse[place] = finalize_lse(root, r);
    store_row(root, r, batch_.out_dtype, slice.out.data() + place * row_bytes);
  }
}

ResultSlice& ResultBuilder::slice_of(const WorkItem& item) {
  const auto after = std::upper_bound(
      slices_.begin(), slices_.end(), item, [](const WorkItem& i, const ResultSlice& s) {
        return std::pair(i.request, i.heads.begin) < std::pair(s.request, s.heads.begin);
      });
  return *(after - 1);
}

}  // namespace mla
