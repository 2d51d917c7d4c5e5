#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/model_config.h"
#include "core/scheduler.h"
#include "dist/model/model.h"
#include "dist/stopwatch.h"
#include "launch/generate/generation_stats.h"

namespace mla::launch {

/// The model and how it is spread over ranks, on standard error.
void print_model(const std::string& name, const ModelConfig& config,
                 const dist::ModelOptions& options, double load_seconds);

/// The closing lines of a generation, on standard error. `read_rate`: bytes per second that rank 0
/// can read.
void print_generation(const GenerationStats& stats, const Scheduler& scheduler, double read_rate);

/// A line on standard error that says how far a generation is, at most every 2 s on a terminal and
/// every 10 s elsewhere.
class GenerationProgress {
 public:
  /// Of a job of `requests`. Not `enabled`: does nothing.
  GenerationProgress(std::int64_t requests, bool enabled);

  /// To be called after every step: how many requests are answered, and the tokens generated.
  void report(std::int64_t answered, std::int64_t generated_tokens);

 private:
  std::int64_t requests_;
  bool enabled_;
  double interval_;  // seconds
  dist::Stopwatch watch_;
  double reported_at_ = 0;  // seconds of watch_, as of the last line
  std::int64_t reported_tokens_ = 0;
};

/// Generated text, on standard output, at once.
void print_text(std::string_view text);

}  // namespace mla::launch
