#pragma once

#include <span>
#include <utility>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "core/result.h"
#include "core/result_sink.h"

namespace mla {

/// The results that one rank owns, as they come into being. Starts with every row as one that sees
/// no key (out 0, lse +inf), so requests of length 0 need no work.
class ResultBuilder final : public ResultSink {
 public:
  ResultBuilder(const Batch& batch, const Partition& partition, int rank);
  /// Only of `owned`, which are ordered as those of a partition.
  ResultBuilder(const Batch& batch, std::span<const Ownership> owned);

  void finish(const WorkItem& item, const PartialView& root) override;

  /// Takes row `row` of `item` as it is finished: d_v elements of the results' type. Distinct rows
  /// may be stored by different threads at the same time.
  void store(const WorkItem& item, std::int64_t row, const std::byte* out, float lse);

  /// The slices as they are now, by request, then by heads.
  std::span<ResultSlice> slices() { return slices_; }
  const std::vector<ResultSlice>& slices() const { return slices_; }

  /// The slices, by request, then by heads.
  std::vector<ResultSlice> take() { return std::move(slices_); }

 private:
  ResultSlice& slice_of(const WorkItem& item);
  static std::int64_t place_of(const WorkItem& item, std::int64_t row, const ResultSlice& slice);

  const Batch& batch_;
  std::vector<ResultSlice> slices_;
};

}  // namespace mla
