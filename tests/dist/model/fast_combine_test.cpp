#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "dist/model/rank_memory.h"
#include "proto/dummy_weights.h"
#include "tests/dist/model/replay.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

/// A layer of DeepSeek's proportions: values have a quarter of the latents' width.
TestModel wide_model() {
  TestModel model{tiny_model("minicpm3").config, {}, ""};
  model.config.num_layers = 1;
  model.config.attention.kv_lora_rank = 512;
  model.config.attention.v_head_dim = 128;
  model.config.attention.num_heads = 8;
  model.config.max_position = 4096;
  model.weights = proto::make_dummy_weights(model.config, 3, WeightType::kBf16);
  return model;
}

ModelSharding sharding_with(bool fast) {
  // Runs of one chunk, so that sequences of a few chunks lie on several ranks.
  return {.ranks = test_world().size(),
          .group_size = test_world().size(),
          .cache_run = kDefaultChunkTokens,
          .fast_combine = fast};
}

struct Outcome {
  std::vector<float> logits;  // of all sequences and positions
  std::int64_t bytes_sent = 0;
};

std::int64_t total(std::int64_t mine) {
  const auto all = test_world().all_gather(mine);
  return std::accumulate(all.begin(), all.end(), std::int64_t{0});
}

/// What all ranks have, where each has other elements and zeros elsewhere.
std::vector<float> together(std::vector<float> mine) {
  std::vector<float> all(mine.size() * static_cast<std::size_t>(test_world().size()));
  test_world().all_gather<float>(mine, all);
  std::fill(mine.begin(), mine.end(), 0.0F);
  for (std::size_t i = 0; i < all.size(); ++i) mine[i % mine.size()] += all[i];
  return mine;
}

/// All sequences at once, in steps that end at multiples of `step_tokens` positions.
Outcome decode(const TestModel& model, const Sequences& sequences, bool fast, int threads,
               std::int64_t step_tokens) {
  std::vector<std::int64_t> first_rows{0};
  for (const auto& s : sequences) first_rows.push_back(first_rows.back() + std::ssize(s));
  const std::int64_t vocab = model.config.vocab_size;
  std::vector<float> logits(static_cast<std::size_t>(first_rows.back() * vocab));
  Replay replay(test_world(), model, sharding_with(fast), threads, DType::kFp16, sequences);
  const auto keep = [&](std::int64_t sequence, std::int64_t position, std::span<const float> row) {
    std::copy(row.begin(), row.end(), logits.begin() + (first_rows[sequence] + position) * vocab);
  };
  for (std::int64_t begin = 0;; begin += step_tokens) {
    std::vector<Part> parts;
    for (std::int64_t s = 0; s < std::ssize(sequences); ++s) {
      const std::int64_t end =
          std::min<std::int64_t>(begin + step_tokens, std::ssize(sequences[s]));
      if (begin < end) parts.push_back({s, {begin, end}});
    }
    if (parts.empty()) break;
    replay.step(parts, keep);
  }
  return {together(std::move(logits)), total(replay.model().work().partial_bytes_sent)};
}

/// The share of positions with a logit that differs by more than 1 % of the largest of all.
double share_of_other_logits(const TestModel& model, const Outcome& a, const Outcome& b) {
  float largest = 0;
  for (const float logit : a.logits) largest = std::max(largest, std::abs(logit));
  const auto vocab = static_cast<std::size_t>(model.config.vocab_size);
  const std::size_t rows = a.logits.size() / vocab;
  std::size_t others = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    float worst = 0;
    for (std::size_t i = row * vocab; i < (row + 1) * vocab; ++i) {
      worst = std::max(worst, std::abs(a.logits[i] - b.logits[i]));
    }
    others += worst > 1e-2F * largest ? 1 : 0;
  }
  return static_cast<double>(others) / static_cast<double>(rows);
}

TEST(FastCombine, IsCloseToTheExactOne) {
  // Where two experts score alike, the least rounding chooses another.
  const std::pair<const char*, double> allowed[] = {
      {"minicpm3", 0}, {"deepseek_v3", 0.02}, {"longcat_flash", 0.02}};
  for (const auto& [family, share] : allowed) {
    SCOPED_TRACE(family);
    TestModel model = tiny_model(family);
    model.config.max_position = 2048;
    const Sequences sequences = random_sequences(model, {1100, 30, 600});
    const Outcome exact = decode(model, sequences, false, 2, 300);
    const Outcome fast = decode(model, sequences, true, 2, 300);
    EXPECT_LE(share_of_other_logits(model, exact, fast), share);
  }
}

TEST(FastCombine, DependsOnTheCutOfASequenceAlone) {
  TestModel model = tiny_model("deepseek_v3");
  model.config.max_position = 2048;
  const Sequences sequences = random_sequences(model, {1100, 30, 600});
  const Outcome one = decode(model, sequences, true, 1, 1100);
  const Outcome other = decode(model, sequences, true, 3, 130);
  EXPECT_EQ(one.logits, other.logits);
}

TEST(FastCombine, SendsAQuarterOfTheElementsInHalfTheBytesEach) {
  const TestModel model = wide_model();
  const std::int64_t length = kDefaultChunkTokens * std::min(test_world().size(), 4);
  const Sequences sequences = random_sequences(model, {length, 40});
  const Outcome exact = decode(model, sequences, false, 1, 512);
  const Outcome fast = decode(model, sequences, true, 1, 512);
  EXPECT_EQ(share_of_other_logits(model, exact, fast), 0);
  if (test_world().size() == 1) {
    EXPECT_EQ(fast.bytes_sent, 0);
  } else {
    EXPECT_GE(exact.bytes_sent, 8 * fast.bytes_sent);
  }
}

TEST(FastCombine, CountsTheMatricesOfOtherRanksHeads) {
  const TestModel model = wide_model();
  const AttentionConfig& a = model.config.attention;
  const ModelLimits limits{.num_pages = 8, .max_tokens = 4, .max_logits = 4};
  const auto weights = [&](bool fast) {
    const ModelSharding sharding{
        .ranks = 4, .group_size = 4, .cache_run = kDefaultChunkTokens, .fast_combine = fast};
    return rank_memory(model.config, model.weights, sharding, limits,
                       kernels::find_host_backend("auto"), 1)
        .weights;
  };
  EXPECT_EQ(weights(true) - weights(false),
            model.config.num_layers * a.num_heads * 3 / 4 * a.v_head_dim * a.kv_lora_rank * 2);
}

}  // namespace
}  // namespace mla::dist
