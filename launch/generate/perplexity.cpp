#include "launch/generate/perplexity.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "launch/affinity.h"
#include "proto/file_io.h"

namespace mla::launch {
namespace {

struct Likelihood {
  double log_sum = 0;
  std::int64_t tokens = 0;
};

std::vector<std::int32_t> read_tokens(const PerplexityOptions& options) {
  const proto::MappedFile file(options.text);
  try {
    return open_text_tools(options.model).tokens(std::string(file.text()));
  } catch (const proto::RequestError& error) {
    throw FormatError("file '" + options.text.string() + "'", error.message, "text to tokenize");
  }
}

/// The tokens of a window but the first, each given those before it.
Likelihood likelihood_of(std::span<const std::int32_t> tokens, LoadedModel& model) {
  std::vector<std::int32_t> pages(ceil_div(std::ssize(tokens), dist::kPageTokens));
  std::iota(pages.begin(), pages.end(), 0);
  Likelihood sum;
  const std::int64_t most = model.options().limits.max_logits;
  for (std::int64_t begin = 0; begin + 1 < std::ssize(tokens); begin += most) {
    const std::int64_t end = std::min(begin + most, std::ssize(tokens) - 1);
    std::vector<dist::RowRequest> rows;
    for (std::int64_t i = begin; i < end; ++i) {
      rows.push_back({.given = tokens[i + 1], .top_logprobs = 0});
    }
    dist::StepBatch batch;
    batch.sequences.push_back({.tokens = tokens.subspan(begin, end - begin),
                               .start = begin,
                               .prefill_end = dist::prefill_end(std::ssize(tokens)),
                               .pages = pages,
                               .logits = dist::WantLogits::kAll});
    for (const dist::RowChoice& choice : model.job().step(batch, rows)) {
      if (choice.failed) throw FormatError("logits", "not numbers", "finite ones");
      sum.log_sum += static_cast<double>(choice.logprobs.front().logprob);
      ++sum.tokens;
    }
  }
  return sum;
}

}  // namespace

ExitCode run_perplexity(const dist::Communicator& comm, const PerplexityOptions& options) {
  const int threads = choose_threads(comm, options.model.threads);
  bind_threads(comm, threads);
  std::vector<std::int32_t> tokens;
  comm.on_root([&] { tokens = read_tokens(options); });
  constexpr std::int64_t kRows = dist::kPrefillBlock;  // of logits in a step
  LoadedModel model(comm, options.model, 1, kRows, threads);
  model.prepare();
  model.job().run([&] {
    const std::int64_t window = model.options().longest_context;
    Likelihood all;
    for (std::int64_t begin = 0; begin < std::ssize(tokens); begin += window) {
      const std::int64_t size = std::min(window, std::ssize(tokens) - begin);
      const Likelihood part = likelihood_of(std::span(tokens).subspan(begin, size), model);
      all.log_sum += part.log_sum;
      all.tokens += part.tokens;
    }
    if (all.tokens == 0) throw FormatError("text", "fewer than two tokens", "two or more");
    fmt::print("perplexity {:.6f} over {} tokens\n",
               std::exp(-all.log_sum / static_cast<double>(all.tokens)), all.tokens);
  });
  return ExitCode::kDone;
}

}  // namespace mla::launch
