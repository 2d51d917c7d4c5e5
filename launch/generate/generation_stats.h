#pragma once

#include <cstdint>
#include <vector>

namespace mla::launch {

/// What a generation did and how long it took.
struct GenerationStats {
  std::int64_t answered = 0;  ///< requests, failed ones included
  std::int64_t failed = 0;
  std::int64_t steps = 0;
  std::int64_t prompt_tokens = 0;  ///< computed, those of preempted requests again
  std::int64_t generated_tokens = 0;
  double seconds = 0;              ///< in steps
  std::int64_t bytes = 0;          ///< of weights and cache that rank 0 read in them
  double decode_seconds = 0;       ///< in steps that only generated
  std::int64_t decode_tokens = 0;  ///< of these steps
  std::int64_t decode_steps = 0;
  std::int64_t decode_bytes = 0;
  std::vector<float> first_token_seconds;  ///< by request: from its start to its first token
};

}  // namespace mla::launch
