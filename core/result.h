#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/range.h"

namespace mla {

/// Finished results of some heads of one request, as their owner writes them.
struct ResultSlice {
  std::int64_t request = 0;  ///< position in the batch
  Range heads;
  std::vector<std::byte> out;  ///< [query_len, heads.size(), d_v] of the batch's out_dtype
  std::vector<float> lse;  ///< [query_len, heads.size()], natural log; +inf where no key is seen

  friend bool operator==(const ResultSlice&, const ResultSlice&) = default;
};

/// The result of one request: tensors, or why there are none.
struct Result {
  std::string custom_id;
  std::int64_t query_len = 0;
  std::int64_t h_q = 0;
  std::int64_t d_v = 0;
  DType out_dtype = DType::kBf16;
  std::vector<std::byte> out;  ///< [query_len, h_q, d_v]
  std::vector<float> lse;      ///< [query_len, h_q]
  std::string error;           ///< empty unless the request failed; then out and lse are empty

  friend bool operator==(const Result&, const Result&) = default;
};

}  // namespace mla
