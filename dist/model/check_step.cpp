#include "dist/model/check_step.h"

#include <string>

#include "core/batch.h"
#include "core/error.h"
#include "dist/model/group_step.h"

namespace mla::dist {
namespace {

void expect(bool holds, const std::string& field, std::int64_t value, const std::string& expected) {
  if (!holds) throw InvalidArgument(field, std::to_string(value), expected);
}

void check_sequence(const std::string& field, const StepSequence& s, const ModelConfig& config,
                    const ModelSharding& sharding, const ModelLimits& limits) {
  const auto tokens = static_cast<std::int64_t>(s.tokens.size());
  const auto pages = static_cast<std::int64_t>(s.pages.size());
  expect(s.group >= 0 && s.group < sharding.groups(), field + ".group", s.group,
         "one of " + std::to_string(sharding.groups()) + " groups");
  expect(tokens > 0, field + ".tokens", tokens, "at least one token");
  expect(s.start >= 0 && s.start + tokens <= config.max_position, field + ".start", s.start,
         "positions up to " + std::to_string(config.max_position));
  expect(pages >= ceil_div(s.start + tokens, kPageTokens), field + ".pages", pages,
         "a page for each " + std::to_string(kPageTokens) + " tokens up to the last one");
  for (const std::int32_t id : s.tokens) {
    expect(id >= 0 && id < config.vocab_size, field + ".tokens", id,
           "0 to " + std::to_string(config.vocab_size - 1));
  }
  for (const std::int32_t page : s.pages) {
    expect(page >= 0 && page < limits.num_pages, field + ".pages", page,
           "0 to " + std::to_string(limits.num_pages - 1));
  }
}

}  // namespace

void check_options(const ModelConfig& config, const ModelSharding& sharding,
                   const ModelLimits& limits, int ranks) {
  expect(sharding.ranks == ranks, "sharding.ranks", sharding.ranks,
         "the job's " + std::to_string(ranks));
  expect(sharding.group_size > 0 && ranks % sharding.group_size == 0, "sharding.group_size",
         sharding.group_size, "a divisor of the " + std::to_string(ranks) + " ranks");
  expect(sharding.cache_run >= 0 && sharding.cache_run % kDefaultChunkTokens == 0,
         "sharding.cache_run", sharding.cache_run,
         "a multiple of " + std::to_string(kDefaultChunkTokens));
  expect(!sharding.fast_combine || sharding.splits_cache(), "sharding.fast_combine", 1,
         "0 where the cache is not split");
  expect(limits.num_pages > 0, "limits.num_pages", limits.num_pages, "at least 1");
  expect(limits.max_tokens > 0, "limits.max_tokens", limits.max_tokens, "at least 1");
  expect(limits.max_logits > 0, "limits.max_logits", limits.max_logits, "at least 1");
  const AttentionConfig& a = config.attention;
  if (a.kv_lora_rank % 16 != 0) {
    throw Unsupported("kv_lora_rank", std::to_string(a.kv_lora_rank), "a multiple of 16");
  }
  if (a.qk_rope_head_dim % 8 != 0) {
    throw Unsupported("qk_rope_head_dim", std::to_string(a.qk_rope_head_dim), "a multiple of 8");
  }
}

void check_step(const StepBatch& batch, const ModelConfig& config, const ModelSharding& sharding,
                const ModelLimits& limits) {
  std::int64_t tokens = 0;
  std::int64_t logits = 0;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    check_sequence("sequences[" + std::to_string(i) + "]", s, config, sharding, limits);
    tokens += static_cast<std::int64_t>(s.tokens.size());
    logits += logits_of(s);
  }
  expect(tokens <= limits.max_tokens, "tokens of a step", tokens,
         "at most max_tokens, " + std::to_string(limits.max_tokens));
  expect(logits <= limits.max_logits, "rows of logits of a step", logits,
         "at most max_logits, " + std::to_string(limits.max_logits));
}

}  // namespace mla::dist
