#include "core/result_builder.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace mla {
namespace {

std::vector<Ownership> ownerships_of(const Partition& partition, int rank) {
  std::vector<Ownership> owned;
  std::copy_if(partition.ownerships.begin(), partition.ownerships.end(), std::back_inserter(owned),
               [=](const Ownership& o) { return o.owner == rank; });
  return owned;
}

}  // namespace

ResultBuilder::ResultBuilder(const Batch& batch, const Partition& partition, int rank)
    : ResultBuilder(batch, ownerships_of(partition, rank)) {}

ResultBuilder::ResultBuilder(const Batch& batch, std::span<const Ownership> owned) : batch_(batch) {
  for (const Ownership& o : owned) {
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
    const std::int64_t place = place_of(item, item.rows.begin + r, slice);
    slice.lse[place] = finalize_lse(root, r);
    store_out_row(root, r, batch_.out_dtype, slice.out.data() + place * row_bytes);
  }
}

void ResultBuilder::store(const WorkItem& item, std::int64_t row, const std::byte* out, float lse) {
  ResultSlice& slice = slice_of(item);
  const std::int64_t place = place_of(item, row, slice);
  const std::int64_t row_bytes = batch_.shape.d_v * size_of(batch_.out_dtype);
  slice.lse[place] = lse;
  std::copy_n(out, row_bytes, slice.out.data() + place * row_bytes);
}

/// Which of the slice's rows is row `row` of the item's.
std::int64_t ResultBuilder::place_of(const WorkItem& item, std::int64_t row,
                                     const ResultSlice& slice) {
  const std::int64_t token = row / item.heads.size();
  const std::int64_t head = item.heads.begin + row % item.heads.size() - slice.heads.begin;
  return token * slice.heads.size() + head;
}

ResultSlice& ResultBuilder::slice_of(const WorkItem& item) {
  const auto after = std::upper_bound(
      slices_.begin(), slices_.end(), item, [](const WorkItem& i, const ResultSlice& s) {
        return std::pair(i.request, i.heads.begin) < std::pair(s.request, s.heads.begin);
      });
  return *(after - 1);
}

}  // namespace mla
