#pragma once

#include <cstdint>

namespace mla::launch::bench {

/// Maximum and sum of a row's softmax weights.
struct SoftmaxSums {
  float max = 0;  ///< of the scores, unscaled
  float sum = 0;  ///< of the weights 2^(scale_log2 * (score - max))
};

/// Replaces `count` scores, a multiple of 16 and at least 16 of them, by their unnormalised softmax
/// weights. Scores of -inf get a weight of at most 2^-126; at least one must be finite. The weights
/// go to `halves`, rounded to bf16, if that is not null, else they take the scores' place.
SoftmaxSums softmax_weights(float* scores, std::int64_t count, float scale_log2,
                            std::uint16_t* halves);

}  // namespace mla::launch::bench
