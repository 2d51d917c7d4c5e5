#pragma once

#include <cstdint>
#include <vector>

namespace mla::launch {

/// Steps of one kind.
struct PhaseStats {
  std::int64_t steps = 0;
  std::int64_t tokens = 0;  ///< of prompts and generated
  double seconds = 0;
  std::int64_t bytes = 0;  ///< of weights and cache that rank 0 read

  void add(const PhaseStats& other) {
    steps += other.steps;
    tokens += other.tokens;
    seconds += other.seconds;
    bytes += other.bytes;
  }
};

/// What a generation did and how long it took.
struct GenerationStats {
  std::int64_t answered = 0;  ///< requests, failed ones included
  std::int64_t failed = 0;
  std::int64_t prompt_tokens = 0;  ///< computed, those of preempted requests again
  std::int64_t generated_tokens = 0;
  PhaseStats prefill;                      ///< steps with tokens of prompts
  PhaseStats decode;                       ///< steps that only generated
  std::vector<float> first_token_seconds;  ///< by request: from its start to its first token
  std::vector<float> token_seconds;        ///< by request: for each token after the first

  double seconds() const { return prefill.seconds + decode.seconds; }
};

}  // namespace mla::launch
