#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace mla {

/// How a token is chosen from logits. The cuts apply in this order, each to what the one before it
/// left: min-p (Nguyen et al. 2024), top-k (Fan et al. 2018), top-p (Holtzman et al. 2020).
struct SamplingParams {
  double temperature = 1.0;  ///< logits are divided by it; 0 takes the largest logit
  double min_p = 0.0;        ///< keep tokens with at least this share of the largest probability
  std::int64_t top_k = 0;    ///< keep this many of the likeliest tokens; 0 keeps all
  double top_p = 1.0;        ///< keep the likeliest tokens until their probabilities add up to this

  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

/// Largest temperature that is accepted.
inline constexpr double kMaxTemperature = 100.0;

/// @throws InvalidArgument naming the field that is out of range.
void check_sampling(const SamplingParams& params);

/// Names one random number. A request's numbers depend on nothing but these three, so they are the
/// same wherever and beside whatever the request runs.
struct SampleCounter {
  std::uint64_t seed = 0;      ///< the request's own, or else the job's
  std::uint64_t stream = 0;    ///< 0 for a request with its own seed, else its index in the job + 1
  std::uint64_t position = 0;  ///< of the token in the request
};

/// A number in [0, 1) with 53 random bits (core/random_stream.h).
double uniform_number(const SampleCounter& counter);

/// The largest of some logits, and the lowest id that has it. A NaN counts as larger than all
/// numbers, so that it is seen.
struct LargestLogit {
  float logit = -std::numeric_limits<float>::infinity();
  std::int32_t id = -1;  ///< -1: of no logits
};

/// `logits[i]` belongs to token `first_id + i`.
LargestLogit largest_logit(std::span<const float> logits, std::int32_t first_id = 0);

/// The larger of two, in any order: folding it over slices of a vocabulary, cut anyhow, gives what
/// `largest_logit` gives for the whole.
LargestLogit larger(LargestLogit a, LargestLogit b);

/// The token of `largest`. @throws FormatError unless its logit is a finite number.
std::int32_t greedy_token(LargestLogit largest);

/// Chooses tokens. Its members are memory that calls reuse; one thread at a time.
class Sampler {
 public:
  /// The id of the chosen logit: a pure function of the arguments, the same bits on every machine
  /// (exponentials from core/exact_math.h, sums of doubles in a fixed order). Of equal logits the
  /// lower id comes first. A logit of -inf is never chosen. `params` have passed `check_sampling`.
  /// @throws FormatError if a logit is NaN or +inf, or none is finite.
  std::int32_t sample(std::span<const float> logits, const SamplingParams& params,
                      const SampleCounter& counter);

 private:
  struct Candidate {
    float logit;
    float weight;  // probability over the largest one
    std::int32_t id;

    // By logit, as two of them may have one weight.
    bool operator<(const Candidate& other) const {
      return logit > other.logit || (logit == other.logit && id < other.id);
    }
  };

  void weigh(std::span<const float> logits, float largest, const SamplingParams& params);
  void keep_top_k(std::int64_t top_k);
  void keep_top_p(double top_p);
  double total_weight() const;

  std::vector<Candidate> candidates_;
};

/// A token and the natural logarithm of its probability at temperature 1, before any cut.
struct TokenLogprob {
  std::int32_t id = 0;
  float logprob = 0;

  friend bool operator==(const TokenLogprob&, const TokenLogprob&) = default;
};

/// The logprob of token `chosen`, then those of the `count` likeliest tokens, likeliest first, of
/// equal ones the lower id (`chosen` may be among them). The same bits on every machine.
/// `chosen` is an index of `logits`; `count` above their number means all.
std::vector<TokenLogprob> token_logprobs(std::span<const float> logits, std::int32_t chosen,
                                         std::int64_t count);

}  // namespace mla
