#include "dist/model/group_step.h"

#include "core/rope.h"
#include "kernels/rotary.h"

namespace mla::dist {

std::int64_t logits_of(const StepSequence& sequence) {
  switch (sequence.logits) {
    case WantLogits::kNone:
      return 0;
    case WantLogits::kLast:
      return 1;
    case WantLogits::kAll:
      break;
  }
  return static_cast<std::int64_t>(sequence.tokens.size());
}

std::vector<std::int64_t> tokens_of_groups(const StepBatch& batch, int groups) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(groups));
  for (const StepSequence& s : batch.sequences) {
    tokens[s.group] += static_cast<std::int64_t>(s.tokens.size());
  }
  return tokens;
}

void make_group_step(const ModelConfig& config, std::span<const float> inv_freq,
                     const StepBatch& batch, int group, GroupStep& step) {
  step.sequences.clear();
  step.ids.clear();
  step.positions.clear();
  step.page_tables.clear();
  step.logits.clear();
  for (const StepSequence& s : batch.sequences) {
    if (s.group != group) continue;
    const std::int64_t first = step.tokens();
    step.ids.insert(step.ids.end(), s.tokens.begin(), s.tokens.end());
    step.sequences.push_back({{first, step.tokens()}, s.start, s.pages});
    for (std::int64_t t = first; t < step.tokens(); ++t) {
      step.positions.push_back(s.start + t - first);
      step.page_tables.push_back(s.pages.data());
      if (step.tokens() - t <= logits_of(s)) step.logits.push_back(t);
    }
  }
  const auto tokens = static_cast<std::size_t>(step.tokens());
  step.cosines.resize(tokens * inv_freq.size());
  step.sines.resize(tokens * inv_freq.size());
  step.q_scales.resize(tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    kernels::rotary_angles(inv_freq, config.rope.attention_factor, step.positions[t],
                           &step.cosines[t * inv_freq.size()], &step.sines[t * inv_freq.size()]);
    step.q_scales[t] =
        config.attention.q_scale * position_scale(config.attention, step.positions[t]);
  }
}

}  // namespace mla::dist
