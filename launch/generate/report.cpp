#include "launch/generate/report.h"

#include <cstdio>
#include <vector>

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "core/median.h"

namespace mla::launch {
namespace {

double rate(std::int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void print_phase(std::string_view name, const PhaseStats& phase, double read_rate) {
  if (phase.steps == 0) return;
  const double bytes_rate = rate(phase.bytes, phase.seconds);
  fmt::print(stderr,
             "{:8} {:.1f} tokens/s in {:.1f} s, {:.2f} ms a step; rank 0 read {:.2f} GB, {:.1f} "
             "GB/s, {:.0f}% of the {:.1f} it can\n",
             name, rate(phase.tokens, phase.seconds), phase.seconds,
             1e3 * phase.seconds / static_cast<double>(phase.steps),
             1e-9 * static_cast<double>(phase.bytes), 1e-9 * bytes_rate,
             100 * bytes_rate / read_rate, 1e-9 * read_rate);
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

void print_generation(const GenerationStats& stats, const Scheduler& scheduler, double read_rate) {
  fmt::print(stderr,
             "requests {} answered, {} of them failed, {} tokens generated, {:.1f} tokens/s with "
             "prompts in {:.1f} s\n"
             "latency  first token after {:.3f} s, {:.2f} ms for each further one (medians)\n",
             stats.answered, stats.failed, stats.generated_tokens,
             rate(stats.prefill.tokens + stats.decode.tokens, stats.seconds()), stats.seconds(),
             median(stats.first_token_seconds), 1e3 * median(stats.token_seconds));
  print_phase("prefill", stats.prefill, read_rate);
  print_phase("decode", stats.decode, read_rate);
  fmt::print(stderr, "cache    {} prompt tokens computed, {} found, {} preemption(s)\n",
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
