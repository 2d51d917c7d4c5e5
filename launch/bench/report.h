#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/reference/compare.h"
#include "launch/bench/limits.h"
#include "launch/bench/measure.h"
#include "launch/bench/point.h"

namespace mla::launch::bench {

/// What one contender did at one point.
struct Row {
  Point point;
  std::string name;  ///< a backend, or a library
  bool on_gpu = false;
  Timing timing;
  std::optional<Roofline> roofline;
  std::optional<double>
      speedup;  ///< how many times as fast its rival was: ours, or the fused operator
  kernels::Comparison check;

  double gflops() const { return 1e-9 * point.flops() / timing.median(); }
  double kv_gbytes() const { return 1e-9 * point.kv_bytes() / timing.median(); }
  std::optional<double> of_limit() const;
};

/// Lines that say on what and how a run was measured: (key, text).
using Header = std::vector<std::pair<std::string, std::string>>;

/// Writes the rows of a run in one form as they come.
class Report {
 public:
  using Sink = std::function<void(const std::string&)>;

  explicit Report(Sink sink) : sink_(std::move(sink)) {}
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;
  virtual ~Report() = default;

  virtual void begin(const Header& header, const Limits& limits) = 0;
  virtual void add(const Row& row) = 0;
  /// `notes` says what was left out.
  virtual void end(const std::vector<std::string>& notes) = 0;

 protected:
  void write(const std::string& text) const { sink_(text); }

 private:
  Sink sink_;
};

/// "table", "markdown", "csv" or "json". Where nothing is `compared`, tables leave that column out.
std::unique_ptr<Report> make_report(const std::string& format, bool compared, Report::Sink sink);

}  // namespace mla::launch::bench
