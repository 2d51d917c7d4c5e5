#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/numerics/attention.h"

namespace mla::test {

/// A way to compute attention whose error is looked at.
struct Method {
  std::string name;               ///< of a backend, or "plain_fp32", "plain_16bit"
  std::int64_t chunk_tokens = 0;  ///< 0: one chunk for all keys
  /// Gets params with that chunk size.
  std::function<FloatAttention(const kernels::DecodeParams&)> run;
};

/// Decodes all chunks with `backend` and finalises.
FloatAttention run_backend(const kernels::HostBackend& backend,
                           const kernels::DecodeParams& params);

/// The errors of one result, over all its rows.
struct ResultErrors {
  double rms = 0;          ///< RMS error of out relative to the RMS of out
  double rms_rounded = 0;  ///< likewise, with out rounded to the cache's type
  double max_abs = 0;      ///< of out
  double max_rel = 0;      ///< of out, where |out| is at least the RMS of its row
  double cosine = 0;       ///< cosine difference of out
  double lse_abs = 0;      ///< largest error of an lse
  /// Elements of out (rounded to the cache's type) and lse outside FlashMLA's tolerances.
  std::int64_t mismatches = 0;
  bool pass = false;  ///< all of FlashMLA's tolerances hold
};

ResultErrors errors_of(const FloatAttention& result, const ExactAttention& exact, DType dtype);

}  // namespace mla::test
