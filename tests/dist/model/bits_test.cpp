#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/dist/model/replay.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

using Logits = std::map<std::pair<std::int64_t, std::int64_t>, std::vector<float>>;

/// As if the first three quarters of each sequence were a prompt of blocks of 64 tokens, of which
/// whole ones take the MHA form.
void set_prefill_ends(const Sequences& sequences, Replay& replay) {
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto length = static_cast<std::int64_t>(sequences[s].size());
    replay.set_prefill_end(static_cast<std::int64_t>(s), length * 3 / 4 / 64 * 64);
  }
}

/// The logits of each sequence alone on this rank, its first half in one step, then token by token.
Logits alone(const TestModel& model, const Sequences& sequences, DType dtype) {
  const Communicator self = Communicator::self();
  Logits logits;
  Replay replay(self, model, {1, 1}, 1, dtype, sequences);
  set_prefill_ends(sequences, replay);
  const auto keep = [&](std::int64_t sequence, std::int64_t position, std::span<const float> row) {
    logits[{sequence, position}].assign(row.begin(), row.end());
  };
  for (std::int64_t s = 0; s < static_cast<std::int64_t>(sequences.size()); ++s) {
    const auto length = static_cast<std::int64_t>(sequences[s].size());
    const std::int64_t half = (length + 1) / 2;
    replay.step({{s, {0, half}}}, keep);
    for (std::int64_t p = half; p < length; ++p) replay.step({{s, {p, p + 1}}}, keep);
  }
  return logits;
}

/// Random steps: some sequences, each by a random number of tokens.
std::vector<std::vector<Part>> random_steps(const Sequences& sequences, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int64_t> done(sequences.size());
  std::vector<std::vector<Part>> steps;
  for (bool more = true; more;) {
    more = false;
    std::vector<Part> step;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const std::int64_t left = static_cast<std::int64_t>(sequences[s].size()) - done[s];
      if (left == 0) continue;
      more = true;
      if (random() % 3 == 0) continue;
      const std::int64_t take = std::min<std::int64_t>(
          left, random() % 2 == 0 ? 1 : 1 + static_cast<std::int64_t>(random() % 150));
      step.push_back({static_cast<std::int64_t>(s), {done[s], done[s] + take}});
      done[s] += take;
    }
    std::shuffle(step.begin(), step.end(), random);
    if (!step.empty()) steps.push_back(step);
  }
  return steps;
}

TakeLogits expect_equal(const Logits& expected) {
  return [&expected](std::int64_t sequence, std::int64_t position, std::span<const float> row) {
    const std::vector<float>& right = expected.at({sequence, position});
    EXPECT_EQ(std::memcmp(right.data(), row.data(), row.size_bytes()), 0)
        << "sequence " << sequence << ", position " << position;
  };
}

std::vector<std::string> shardings() {
  std::vector<std::string> names{"heads", "kv", "requests"};
  for (const int groups : {2, 4}) {
    if (test_world().size() % groups != 0 || test_world().size() == groups) continue;
    names.push_back("groups:" + std::to_string(groups));
  }
  return names;
}

/// Threads of the sharding `index`: either number, taking turns over shardings and ranks; both if
/// the environment has MLA_FULL_GRID.
std::vector<int> threads_for(std::size_t index) {
  if (std::getenv("MLA_FULL_GRID") != nullptr) return {1, 3};
  return {(index + static_cast<std::size_t>(test_world().size())) % 2 == 0 ? 1 : 3};
}

void expect_same_bits_everywhere(const TestModel& model, const std::vector<std::int64_t>& lengths,
                                 DType dtype) {
  const Sequences sequences = random_sequences(model, lengths);
  const Logits expected = alone(model, sequences, dtype);
  unsigned seed = 0;
  const std::vector<std::string> names = shardings();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    for (const int threads : threads_for(i)) {
      SCOPED_TRACE(name + ", " + std::to_string(threads) + " threads");
      Replay replay(test_world(), model, parse_model_sharding(name, test_world().size(), 1100),
                    threads, dtype, sequences);
      set_prefill_ends(sequences, replay);
      for (const auto& step : random_steps(sequences, ++seed)) {
        replay.step(step, expect_equal(expected));
      }
    }
  }
}

TEST(ModelBits, DependOnNothingButTheTokensOfASequence) {
  for (const char* family : {"deepseek_v3", "deepseek_v2_lite", "longcat_flash", "minicpm3"}) {
    SCOPED_TRACE(family);
    expect_same_bits_everywhere(tiny_model(family), {40, 3, 120, 65, 1}, DType::kFp16);
  }
}

TEST(ModelBits, AreTheSameAloneAndAmong31Others) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 32; ++i) lengths.push_back(1 + i * 7 % 32);
  expect_same_bits_everywhere(tiny_model("deepseek_v3"), lengths, DType::kFp32);
  if (std::getenv("MLA_FULL_GRID") == nullptr) return;
  expect_same_bits_everywhere(demo_model(), lengths, DType::kFp32);
}

TEST(ModelBits, AreTheSameForContextsOfSeveralChunks) {
  TestModel model = tiny_model("deepseek_v3");
  model.config.max_position = 2048;
  for (const DType dtype : {DType::kBf16, DType::kFp32}) {
    expect_same_bits_everywhere(model, {1100, 700}, dtype);
  }
}

TEST(ModelBits, AreTheSameWithSharedPrefixes) {
  const TestModel& model = tiny_model("deepseek_v3");
  Sequences sequences = random_sequences(model, {100, 150});
  std::copy_n(sequences[0].begin(), 64, sequences[1].begin());
  const Logits expected = alone(model, sequences, DType::kFp16);
  Replay replay(test_world(), model, parse_model_sharding("heads", test_world().size(), 150), 2,
                DType::kFp16, sequences);
  set_prefill_ends(sequences, replay);
  replay.step({{0, {0, 100}}}, expect_equal(expected));
  replay.share_prefix(0, 1, 64);
  replay.step({{1, {64, 150}}}, expect_equal(expected));
}

}  // namespace
}  // namespace mla::dist
