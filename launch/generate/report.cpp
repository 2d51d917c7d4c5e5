#include "launch/generate/report.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace mla::launch {
namespace {

double rate(std::int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

float median(std::vector<float> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

void print_model(const std::string& name, const ModelConfig& config,
                 const dist::ModelOptions& options, double load_seconds) {
  fmt::print(stderr,
             "model    {}: {}, {} layers, hidden {}, {} heads, loaded in {:.1f} s\n"
             "ranks    {}, cache {} tokens ({}) in each of {} group(s), {} tokens a step\n",
             name, config.family, config.num_layers, config.hidden_size, config.attention.num_heads,
             load_seconds, to_string(options.sharding),
             options.limits.num_pages * dist::kPageTokens, name_of(options.limits.kv_dtype),
             options.sharding.groups(), options.limits.max_tokens);
}

void print_generation(const GenerationStats& stats, const Scheduler& scheduler) {
  const double other_seconds = stats.seconds - stats.decode_seconds;
  const std::int64_t other_tokens =
      stats.prompt_tokens + stats.generated_tokens - stats.decode_tokens;
  fmt::print(stderr,
             "requests {} answered, {} of them failed, {} tokens generated\n"
             "tokens/s {:.1f} of prompts and text together in {:.1f} s; text alone {:.1f} "
             "({:.1f} ms a step); first token after {:.2f} s (median)\n"
             "steps    with prompts {:.1f} tokens/s, rank 0 read {:.1f} GB/s; of text alone {:.1f} "
             "GB/s, {:.0f} MB a step\n"
             "cache    {} prompt tokens computed, {} found, {} preemption(s)\n",
             stats.answered, stats.failed, stats.generated_tokens,
             rate(stats.prompt_tokens + stats.generated_tokens, stats.seconds), stats.seconds,
             rate(stats.decode_tokens, stats.decode_seconds),
             1e3 * stats.decode_seconds /
                 static_cast<double>(std::max<std::int64_t>(1, stats.decode_steps)),
             median(stats.first_token_seconds), rate(other_tokens, other_seconds),
             1e-9 * rate(stats.bytes - stats.decode_bytes, other_seconds),
             1e-9 * rate(stats.decode_bytes, stats.decode_seconds),
             1e-6 * static_cast<double>(stats.decode_bytes) /
                 static_cast<double>(std::max<std::int64_t>(1, stats.decode_steps)),
             stats.prompt_tokens, scheduler.shared_tokens(), scheduler.preemptions());
}

GenerationProgress::GenerationProgress(std::int64_t requests, bool enabled)
    : requests_(requests), enabled_(enabled), interval_(isatty(STDERR_FILENO) != 0 ? 2 : 10) {}

void GenerationProgress::report(std::int64_t answered, std::int64_t generated_tokens) {
  const double seconds = watch_.seconds() - reported_at_;
  if (!enabled_ || seconds < interval_) return;
  spdlog::info("rank 0: {} of {} requests, {:.1f} tokens/s", answered, requests_,
               rate(generated_tokens - reported_tokens_, seconds));
  reported_at_ += seconds;
  reported_tokens_ = generated_tokens;
}

void print_text(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace mla::launch
