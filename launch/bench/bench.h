#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"
#include "launch/bench/grid.h"
#include "launch/bench/measure.h"
#include "launch/bench/report.h"

namespace mla::launch::bench {

/// What `meshmla bench` was asked for.
struct BenchOptions {
  Grid grid;
  std::string backends = "auto";  ///< auto, all (but the reference), or names
  std::string combine = "both";   ///< of GPU backends: exact, fast or both
  RepeatPolicy repeats;
  std::string max_cache;  ///< empty: 8 GiB or half of the memory, the smaller of both
  bool hot = false;
  bool limits = true;
  bool peers = false;

  /// True if rows are compared with one another.
  bool compares() const { return peers || grid.projected; }
};

/// Measures the grid, row by row into `report`; progress goes to standard error. Returns
/// kVerificationFailed if a result was wrong.
/// @throws InvalidArgument or Unsupported before anything is measured.
ExitCode run_bench(const BenchOptions& options, Report& report);

}  // namespace mla::launch::bench
