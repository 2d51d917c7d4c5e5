#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/batch.h"
#include "kernels/local_decode.h"
#include "kernels/reference/compare.h"
#include "launch/bench/point.h"

namespace mla::launch::bench {

/// One way to compute a point, to be timed against others.
class Contender {
 public:
  Contender() = default;
  Contender(const Contender&) = delete;
  Contender& operator=(const Contender&) = delete;
  virtual ~Contender() = default;

  virtual std::string name() const = 0;

  /// What comes before each run and is not timed: other pages, NaN over the old results.
  virtual void prepare() = 0;

  /// Computes the whole batch.
  virtual void run() = 0;

  /// The same, and how many seconds it took: of wall time, unless the contender knows better.
  virtual double timed_run();

  /// Compares a sample of the last run's results with the oracle.
  virtual kernels::Comparison check() const = 0;
};

/// The batch of a point and its queries, which all contenders share.
struct Workload {
  explicit Workload(const Point& p);

  const std::uint16_t* query(std::int64_t request) const {
    return q.data() + request * point.rows() * point.shape.d_qk;
  }
  /// Where the queries lie, for a decoder; the block tables are left to fill in.
  kernels::RankInputs inputs(const KvView& kv) const;

  Point point;
  Batch batch;
  std::vector<std::uint16_t> q;  ///< [batch, query_len, heads, d_qk]
};

/// Reads the result of row `row` (query * heads + head) of request `request`: out[d_v] and lse.
struct RowResult {
  std::vector<float> out;
  float lse = 0;
};
using RowReader = std::function<RowResult(std::int64_t request, std::int64_t row)>;

/// Row `row` of elements of `dtype`, `size` to a row, at `out`.
std::vector<float> read_elements(const void* out, DType dtype, std::int64_t row, std::int64_t size);

/// Overwrites results with NaN of every floating-point type.
void poison(void* results, std::int64_t bytes);

/// What a row should be, in fp64.
struct ExactRow {
  std::vector<double> out;
  double lse = 0;
};
using RowOracle = std::function<ExactRow(std::int64_t request, std::int64_t row)>;

/// Compares rows spread over the batch, the first and the last among them, with `oracle`. Their
/// number shrinks with the context, so that a check costs a fraction of a second.
kernels::Comparison check_sample(const Point& point, const RowOracle& oracle,
                                 const RowReader& read_row);
/// The same with the oracle of decoding.
kernels::Comparison check_sample(const Workload& workload, const kernels::RankInputs& inputs,
                                 const RowReader& read_row);

}  // namespace mla::launch::bench
