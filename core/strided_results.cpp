#include "core/strided_results.h"

#include <cstring>
#include <limits>

namespace mla {

StridedResults::StridedResults(const Batch& batch)
    : batch_(batch), query_offsets_(query_offsets(batch)) {}

void StridedResults::write_to(const ResultPlaces& places) {
  places_ = places;
  const auto row_bytes = static_cast<std::size_t>(batch_.shape.d_v * size_of(batch_.out_dtype));
  for (std::size_t r = 0; r < batch_.requests.size(); ++r) {
    const Request& request = batch_.requests[r];
    if (request.context_len > 0) continue;
    for (std::int64_t j = 0; j < request.query_len; ++j) {
      for (std::int64_t head = 0; head < batch_.shape.h_q; ++head) {
        std::memset(out_row(query_offsets_[r] + j, head), 0, row_bytes);
        lse_of(query_offsets_[r] + j, head) = std::numeric_limits<float>::infinity();
      }
    }
  }
}

void StridedResults::finish(const WorkItem& item, const PartialView& root) {
  for (std::int64_t r = 0; r < item.rows.size(); ++r) {
    const std::int64_t row = item.rows.begin + r;
    const std::int64_t token = query_offsets_[item.request] + row / item.heads.size();
    const std::int64_t head = item.heads.begin + row % item.heads.size();
    lse_of(token, head) = finalize_lse(root, r);
    store_out_row(root, r, batch_.out_dtype, out_row(token, head));
  }
}

std::byte* StridedResults::out_row(std::int64_t token, std::int64_t head) const {
  return places_.out + (token * places_.out_token_stride + head * places_.out_head_stride) *
                           size_of(batch_.out_dtype);
}

float& StridedResults::lse_of(std::int64_t token, std::int64_t head) const {
  return places_.lse[token * places_.lse_token_stride + head * places_.lse_head_stride];
}

}  // namespace mla
