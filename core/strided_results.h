#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/result_sink.h"

namespace mla {

/// Where the results of a whole batch go, in memory of the caller's. The query tokens of all
/// requests are numbered one after the other.
struct ResultPlaces {
  std::byte* out = nullptr;  ///< element (token, head, d) at token * out_token_stride + ... + d
  std::int64_t out_token_stride = 0;  ///< elements
  std::int64_t out_head_stride = 0;
  float* lse = nullptr;  ///< (token, head)
  std::int64_t lse_token_stride = 0;
  std::int64_t lse_head_stride = 0;
};

/// Writes finished rows to where the caller wants them.
class StridedResults final : public ResultSink {
 public:
  /// `batch` must outlive it.
  explicit StridedResults(const Batch& batch);

  /// Results go to `places` from now on. Requests without cached tokens, for which nothing is
  /// computed, get theirs at once: out 0, lse +inf. Allocates nothing.
  void write_to(const ResultPlaces& places);

  void finish(const WorkItem& item, const PartialView& root) override;

 private:
  std::byte* out_row(std::int64_t token, std::int64_t head) const;
  float& lse_of(std::int64_t token, std::int64_t head) const;

  const Batch& batch_;
  std::vector<std::int64_t> query_offsets_;
  ResultPlaces places_;
};

}  // namespace mla
