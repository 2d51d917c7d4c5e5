#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/dist/model/replay.h"
#include "tests/dist/world.h"
#include "tests/kernels/activation_loss.h"

namespace mla::dist {
namespace {

nlohmann::json read_golden(const TestModel& model) {
  std::ifstream file(model.folder + "/golden.json");
  return nlohmann::json::parse(file);
}

ModelSharding sharding_named(const std::string& name) {
  return parse_model_sharding(name, test_world().size(), 1024);
}

/// The largest difference on this rank between logits and the golden ones of some positions.
class LogitsCheck {
 public:
  explicit LogitsCheck(const nlohmann::json& cases) {
    for (std::size_t s = 0; s < cases.size(); ++s) {
      const auto positions = cases[s]["positions"].get<std::vector<std::int64_t>>();
      for (std::size_t i = 0; i < positions.size(); ++i) {
        expected_[{static_cast<std::int64_t>(s), positions[i]}] =
            cases[s]["logits"][i].get<std::vector<float>>();
      }
    }
  }
  void operator()(std::int64_t sequence, std::int64_t position, std::span<const float> logits) {
    const auto expected = expected_.find({sequence, position});
    if (expected == expected_.end()) return;
    for (std::size_t c = 0; c < logits.size(); ++c) {
      const float error = std::abs(logits[c] - expected->second[c]);
      if (!(error <= worst)) worst = error;
    }
  }
  float worst = 0;

 private:
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<float>> expected_;
};

Sequences ids_of(const nlohmann::json& cases, const char* key) {
  Sequences ids;
  for (const auto& c : cases) ids.push_back(c[key].get<std::vector<std::int32_t>>());
  return ids;
}

std::vector<Part> whole(const Sequences& sequences) {
  std::vector<Part> parts;
  for (const auto& s : sequences) {
    parts.push_back(
        {static_cast<std::int64_t>(parts.size()), {0, static_cast<std::int64_t>(s.size())}});
  }
  return parts;
}

/// Decodes greedily along the golden tokens, which are taken where two are as likely.
void expect_golden_tokens(const TestModel& model, const ModelSharding& sharding,
                          const Sequences& prompts, const Sequences& outputs,
                          const std::vector<std::vector<float>>& margins) {
  Sequences all = prompts;
  std::size_t longest = 0;
  for (std::size_t s = 0; s < all.size(); ++s) {
    all[s].insert(all[s].end(), outputs[s].begin(), outputs[s].end());
    longest = std::max(longest, outputs[s].size());
  }
  Replay replay(test_world(), model, sharding, 2, DType::kFp32, all);
  std::vector<Part> parts = whole(prompts);
  for (std::size_t i = 0; i < longest; ++i) {
    replay.step(parts, [](auto...) {});
    const auto largest = replay.model().largest();
    std::int64_t row = -1;
    std::vector<Part> next;
    for (const Part& part : parts) {
      row += part.positions.size();
      const std::int64_t s = part.sequence;
      if (margins[s][i] > 1e-3) {
        EXPECT_EQ(largest[row].id, outputs[s][i]) << "sequence " << s << ", token " << i;
      }
      if (i + 1 < outputs[s].size()) {
        next.push_back({s, {part.positions.end, part.positions.end + 1}});
      }
    }
    parts = std::move(next);
  }
}

/// What logits of the tiny models may differ by.
float logits_tolerance() {
  return 1e-4F + 64 * test::activation_loss();
}

class TinyModels : public testing::TestWithParam<const char*> {};

TEST_P(TinyModels, AgreeWithTransformersInLogitsAndTokens) {
  const TestModel& model = tiny_model(GetParam());
  const nlohmann::json golden = read_golden(model);
  for (const char* name : {"heads", "requests"}) {
    // One by one: with LongRoPE the longest context of a job chooses the frequencies.
    for (const auto& one : golden["cases"]) {
      SCOPED_TRACE(name);
      const nlohmann::json cases{one};
      const auto prompts = ids_of(cases, "ids");
      LogitsCheck check(cases);
      Replay replay(test_world(), model, sharding_named(name), 2, DType::kFp32, prompts);
      replay.step(whole(prompts), std::ref(check));
      EXPECT_LE(check.worst, logits_tolerance());
      expect_golden_tokens(model, sharding_named(name), prompts, ids_of(cases, "greedy"),
                           {one["margins"].get<std::vector<float>>()});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TinyModels,
                         testing::Values("deepseek_v2", "deepseek_v2_lite", "deepseek_v3",
                                         "deepseek_v3_fp8", "glm4_moe_lite", "longcat_flash",
                                         "minicpm3", "mistral4", "youtu"),
                         [](const auto& family) { return std::string(family.param); });

TEST(TinyModel, ComputesTheSameInTheMhaForm) {
  for (const char* family : {"deepseek_v3", "longcat_flash", "mistral4"}) {
    TestModel model = tiny_model(family);
    model.config.max_position = 2048;
    Sequences prompt(1);
    for (std::int32_t i = 0; i < 1200; ++i) {
      prompt[0].push_back(static_cast<std::int32_t>(i * 7919 % model.config.vocab_size));
    }
    std::map<std::int64_t, std::vector<float>> absorbed;
    float worst = 0;
    for (const std::int64_t prefill_end : {0, 1152}) {
      Replay replay(test_world(), model, sharding_named("heads"), 2, DType::kFp32, prompt);
      replay.set_prefill_end(0, prefill_end);
      replay.step(whole(prompt), [&](auto, std::int64_t position, std::span<const float> logits) {
        std::vector<float>& expected = absorbed[position];
        if (expected.empty()) expected.assign(logits.begin(), logits.end());
        for (std::size_t c = 0; c < logits.size(); ++c) {
          const float error = std::abs(logits[c] - expected[c]);
          if (!(error <= worst)) worst = error;
        }
      });
    }
    EXPECT_LE(worst, logits_tolerance()) << family;
    EXPECT_GT(worst, 0) << family << ": it is another order of sums";
  }
}

TEST(DemoModel, AgreesWithTransformersInLogitsAndTokens) {
  const TestModel& model = demo_model();
  const nlohmann::json golden = read_golden(model);
  const auto texts = ids_of(golden["logits"], "ids");
  const std::pair<DType, float> tolerances[] = {
      {DType::kFp32, 1e-4F}, {DType::kFp16, 5e-3F}, {DType::kBf16, 3e-2F}};
  for (const auto& [dtype, tolerance] : tolerances) {
    LogitsCheck check(golden["logits"]);
    Replay replay(test_world(), model, sharding_named("heads"), 2, dtype, texts);
    replay.step(whole(texts), std::ref(check));
    EXPECT_LE(check.worst, tolerance) << name_of(dtype);
  }
  std::vector<std::vector<float>> margins;
  for (const auto& c : golden["greedy"]) {
    margins.emplace_back(c["output_ids"].size(), c["min_top2_margin"].get<float>());
  }
  expect_golden_tokens(model, sharding_named("heads"), ids_of(golden["greedy"], "prompt_ids"),
                       ids_of(golden["greedy"], "output_ids"), margins);
}

}  // namespace
}  // namespace mla::dist
