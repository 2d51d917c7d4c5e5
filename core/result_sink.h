#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/partial.h"
#include "core/split_plan.h"

namespace mla {

/// Takes rows as they are finished, on any thread.
class ResultSink {
 public:
  ResultSink() = default;
  ResultSink(const ResultSink&) = delete;
  ResultSink& operator=(const ResultSink&) = delete;
  virtual ~ResultSink() = default;

  /// Normalises the root partial of `item` into its rows. Distinct rows may be finished by
  /// different threads at the same time. Allocates nothing.
  virtual void finish(const WorkItem& item, const PartialView& root) = 0;

 protected:
  ResultSink(ResultSink&&) = default;
  ResultSink& operator=(ResultSink&&) = default;
};

/// Writes o / l of row `row`, rounded to `dtype`, to `out`: d_v elements, at any address.
void store_out_row(const PartialView& root, std::int64_t row, DType dtype, std::byte* out);

}  // namespace mla
