#include "launch/bench/model_bench.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "core/build_info.h"
#include "core/median.h"
#include "dist/model/model.h"
#include "dist/stopwatch.h"
#include "launch/affinity.h"
#include "launch/bench/sizes.h"
#include "launch/generate/loaded_model.h"
#include "launch/machine.h"
#include "launch/read_rate.h"

namespace mla::launch::bench {
namespace {

constexpr std::int64_t kPromptStepTokens = 1024;

/// Requests of one length, which are fed their prompts and then one token after another.
class ModelPoint {
 public:
  ModelPoint(dist::Model& model, const dist::ModelSharding& sharding, std::int64_t vocab,
             std::int64_t requests, std::int64_t context, int steps)
      : model_(model), sharding_(sharding), context_(context) {
    const std::int64_t pages = ceil_div(context + steps, dist::kPageTokens);
    const bool splits = sharding.splits_cache();
    const std::int64_t rank_pages =
        splits ? std::min(pages, sharding.cache_run / dist::kPageTokens) : pages;
    for (std::int64_t r = 0; r < requests; ++r) {
      Sequence& sequence = sequences_.emplace_back();
      for (std::int64_t i = 0; i < context + steps; ++i) {
        sequence.tokens.push_back(static_cast<std::int32_t>((r * 7919 + i * 104729) % vocab));
      }
      for (std::int64_t page = 0; page < pages; ++page) {
        const std::int64_t own =
            page - (splits ? sharding.cache_rank(page * dist::kPageTokens) * rank_pages : 0);
        sequence.pages.push_back(
            static_cast<std::int32_t>(r / sharding.groups() * rank_pages + own));
      }
    }
  }

  void feed_prompts() {
    for (std::size_t r = 0; r < sequences_.size(); ++r) {
      for (std::int64_t begin = 0; begin < context_; begin += kPromptStepTokens) {
        const std::int64_t count = std::min(kPromptStepTokens, context_ - begin);
        model_.step({{part(r, begin, count, dist::WantLogits::kNone)}});
      }
    }
  }

  /// The tokens at position context + step.
  void decode(int step) {
    dist::StepBatch batch;
    for (std::size_t r = 0; r < sequences_.size(); ++r) {
      batch.sequences.push_back(part(r, context_ + step, 1, dist::WantLogits::kLast));
    }
    model_.step(batch);
    model_.largest();
  }

 private:
  struct Sequence {
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> pages;
  };

  dist::StepSequence part(std::size_t request, std::int64_t begin, std::int64_t count,
                          dist::WantLogits logits) const {
    const auto group = static_cast<int>(request) % sharding_.groups();
    const std::span<const std::int32_t> tokens(sequences_[request].tokens);
    return {.group = group,
            .tokens = tokens.subspan(begin, count),
            .start = begin,
            .prefill_end = dist::prefill_end(context_),
            .pages = sequences_[request].pages,
            .logits = logits};
  }

  dist::Model& model_;
  const dist::ModelSharding& sharding_;
  std::int64_t context_;
  std::vector<Sequence> sequences_;
};

/// Of a step on average, of all ranks. Collective.
std::int64_t mean_partial_bytes(const dist::Communicator& comm, const dist::ModelWork& before,
                                const dist::ModelWork& after, int steps) {
  const auto bytes = comm.all_gather(after.partial_bytes_sent - before.partial_bytes_sent);
  return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0}) / steps;
}

/// Of a step on average: the seconds of rank 0, the bytes of all ranks. Collective.
dist::PartWork mean_work(const dist::Communicator& comm, const dist::PartWork& before,
                         const dist::PartWork& after, int steps) {
  const auto bytes = comm.all_gather(after.bytes - before.bytes);
  return {.seconds = (after.seconds - before.seconds) / steps,
          .bytes = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0}) / steps};
}

std::string line_of(const std::string& name, const dist::PartWork& work, double limit) {
  if (work.bytes == 0) return "";
  const double rate = static_cast<double>(work.bytes) / work.seconds;
  return fmt::format("| {} | {:.2f} | {:.0f} | {:.1f} | {:.0f}% |\n", name, 1e3 * work.seconds,
                     1e-6 * static_cast<double>(work.bytes), 1e-9 * rate, 100 * rate / limit);
}

ModelSettings settings_of(const ModelBenchOptions& options, std::int64_t context) {
  ModelSettings settings;
  settings.name = options.model;
  settings.load_format = "dummy";
  settings.layers = options.layers;
  settings.sharding = options.sharding;
  settings.combine = options.combine;
  settings.backend = options.backend;
  settings.kv_dtype = options.kv_dtype;
  settings.max_step_tokens = kPromptStepTokens;
  settings.max_context = context;
  return settings;
}

}  // namespace

ExitCode run_model_bench(const dist::Communicator& comm, const ModelBenchOptions& options,
                         const std::function<void(const std::string&)>& sink) {
  const auto print = [&](const std::string& text) {
    if (comm.rank() == 0) sink(text);
  };

  int wanted_threads = 0;
  std::vector<std::int64_t> requests_list;
  std::vector<std::int64_t> contexts;
  comm.together([&] {
    if (!options.threads.empty()) {
      wanted_threads = static_cast<int>(parse_size("--threads", options.threads, 4096));
    }
    requests_list = parse_sizes("--batch", options.requests);
    contexts = parse_sizes("--seqlen", options.contexts);
  });
  const int threads = choose_threads(comm, wanted_threads);
  bind_threads(comm, threads);
  const std::int64_t most = *std::max_element(requests_list.begin(), requests_list.end());
  const std::int64_t longest = *std::max_element(contexts.begin(), contexts.end()) + options.steps;
  LoadedModel loaded(comm, settings_of(options, longest), most, most, threads);
  const auto rates = comm.all_gather(read_rate(comm, threads));
  const double limit = std::accumulate(rates.begin(), rates.end(), 0.0);
  const dist::Stopwatch load;
  loaded.prepare();
  dist::Model& model = loaded.model();
  const ModelConfig& config = loaded.config();
  const dist::ModelOptions& model_options = loaded.options();
  print(
      fmt::format("{}\n{}, {}\n{}, {} layers, bf16 weights made up in {:.1f} s, cache {}\n"
                  "{} rank(s) of {} thread(s), {}, backend {}: together they read {:.1f} GB/s\n",
                  build_summary(), cpu_model(), date_today(), options.model, config.num_layers,
                  load.seconds(), options.kv_dtype, comm.size(), threads,
                  to_string(model_options.sharding), loaded.backend_name(), 1e-9 * limit));

  for (const std::int64_t requests : requests_list) {
    for (const std::int64_t context : contexts) {
      ModelPoint point(model, model_options.sharding, config.vocab_size, requests, context,
                       options.steps);
      const dist::Stopwatch prompts;
      point.feed_prompts();
      const double prompt_seconds = prompts.seconds();
      const dist::ModelWork before = model.work();
      std::vector<double> times;
      for (int step = 0; step < options.steps; ++step) {
        const dist::Stopwatch watch;
        point.decode(step);
        times.push_back(watch.seconds());
      }
      const dist::ModelWork after = model.work();
      const auto part = [&](dist::PartWork dist::ModelWork::*which) {
        return mean_work(comm, before.*which, after.*which, options.steps);
      };
      const dist::PartWork parts[] = {part(&dist::ModelWork::attention),
                                      part(&dist::ModelWork::mlp), part(&dist::ModelWork::experts),
                                      part(&dist::ModelWork::head)};
      dist::PartWork step{.seconds = median(times)};
      for (const dist::PartWork& work : parts) step.bytes += work.bytes;
      print(
          fmt::format("\n{} request(s) of {} tokens: {:.1f} tokens/s; prompts {:.0f} tokens/s\n"
                      "| part | ms | MB | GB/s | of reads |\n|---|---|---|---|---|\n",
                      requests, context, static_cast<double>(requests) / step.seconds,
                      static_cast<double>(requests * context) / prompt_seconds));
      print(line_of("attention", parts[0], limit) + line_of("dense MLPs", parts[1], limit) +
            line_of("experts", parts[2], limit) + line_of("head", parts[3], limit) +
            line_of("step (median)", step, limit));
      const std::int64_t partials = mean_partial_bytes(comm, before, after, options.steps);
      if (model_options.sharding.splits_cache()) {
        print(fmt::format("partials and outputs sent, {} combine: {:.1f} KiB a step\n",
                          model_options.sharding.fast_combine ? "fast" : "exact",
                          static_cast<double>(partials) / 1024));
      }
    }
  }
  return ExitCode::kDone;
}

}  // namespace mla::launch::bench
