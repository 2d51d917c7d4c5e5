#include "dist/model/group_step.h"

#include <algorithm>

#include "core/rope.h"
#include "kernels/rotary.h"

namespace mla::dist {
namespace {

/// How many of the new tokens take the MHA form.
std::int64_t prefill_tokens(const StepSequence& s) {
  return std::clamp<std::int64_t>(s.prefill_end - s.start, 0, std::ssize(s.tokens));
}

/// Adds the tokens `part` of a sequence, if there are any.
void add_part(const StepSequence& s, Range part, std::vector<GroupStep::Part>& parts,
              GroupStep& step) {
  if (part.empty()) return;
  const std::int64_t first = step.tokens();
  parts.push_back({{first, first + part.size()}, s.start + part.begin, s.pages});
  for (std::int64_t i = part.begin; i < part.end; ++i) {
    step.ids.push_back(s.tokens[i]);
    step.positions.push_back(s.start + i);
    step.page_tables.push_back(s.pages.data());
  }
}

/// Finds the tokens whose logits are wanted among those of both forms.
void add_logits(const StepBatch& batch, int group, GroupStep& step) {
  std::int64_t next_absorbed = 0;
  std::int64_t next_prefill = step.absorbed_tokens;
  for (const StepSequence& s : batch.sequences) {
    if (s.group != group) continue;
    for (std::int64_t i = 0; i < std::ssize(s.tokens); ++i) {
      const std::int64_t token = i < prefill_tokens(s) ? next_prefill++ : next_absorbed++;
      if (std::ssize(s.tokens) - i <= logits_of(s)) step.logits.push_back(token);
    }
  }
}

}  // namespace

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
  step.absorbed.clear();
  step.prefills.clear();
  step.ids.clear();
  step.positions.clear();
  step.page_tables.clear();
  step.logits.clear();
  for (const StepSequence& s : batch.sequences) {
    if (s.group == group)
      add_part(s, {prefill_tokens(s), std::ssize(s.tokens)}, step.absorbed, step);
  }
  step.absorbed_tokens = step.tokens();
  for (const StepSequence& s : batch.sequences) {
    if (s.group == group) add_part(s, {0, prefill_tokens(s)}, step.prefills, step);
  }
  add_logits(batch, group, step);
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
