#pragma once

#include <functional>
#include <string>

#include "core/error.h"
#include "launch/bench/measure.h"

namespace mla::launch::bench {

/// What `meshmla bench --linear` was asked for.
struct LinearBenchOptions {
  /// Outputs x columns of layers; with a number and ':' before it, as many that run together.
  std::string layers = "2048x2048,10944x2048,2048x10944,6:1408x2048,102400x2048";
  std::string rows = "1,4,16,64,256";  ///< of x
  std::string threads;                 ///< empty: one per core
  std::string backends = "auto";
  RepeatPolicy repeats;
  bool hot = false;  ///< the same weights in every repeat
};

/// Measures linear layers with bf16 weights that come from memory (unless hot), against what the
/// machine reads and multiplies in fp32 at most. A table goes to `sink`, line by line. Returns
/// kVerificationFailed if a result was wrong.
/// @throws InvalidArgument or Unsupported before anything is measured.
ExitCode run_linear_bench(const LinearBenchOptions& options,
                          const std::function<void(const std::string&)>& sink);

}  // namespace mla::launch::bench
