#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/sampler.h"
#include "core/stop_watcher.h"
#include "proto/chat_template.h"
#include "proto/file_io.h"

namespace mla::proto {

/// Which of OpenAI's calls a request asks for, and so what its answer looks like.
enum class Endpoint { kCompletions, kChat };

/// A text, its tokens, or a conversation.
using Prompt = std::variant<std::string, std::vector<std::int32_t>, std::vector<ChatMessage>>;

/// One prompt and how to go on from it. What is set here is what a line may leave out.
struct CompletionRequest {
  std::string custom_id;
  Endpoint endpoint = Endpoint::kCompletions;
  Prompt prompt;
  SamplingParams sampling;
  StopRules stop;  ///< `max_tokens` as it is: no limit but the context
  /// The request's own; none: the job's seed with the request's index.
  std::optional<std::uint64_t> seed;
  /// How many of the likeliest tokens are reported beside the chosen one; none: no logprobs.
  std::optional<std::int64_t> top_logprobs;
};

/// Why one request cannot run, in OpenAI's terms. Others go on.
struct RequestError {
  std::string message;
  int status = 400;  ///< of HTTP: 400 the request's fault, 500 ours
};

/// Request `index` of a file.
struct CompletionLine {
  std::string custom_id;  ///< "" if it cannot be told
  std::variant<CompletionRequest, RequestError> request;
};

/// Largest line, and most lines, of a file of requests.
inline constexpr std::size_t kMaxLineBytes = std::size_t{1} << 26;
inline constexpr std::size_t kMaxCompletions = 10'000'000;

/// A file of requests, read line by line: only where the lines begin is kept in memory.
///   .txt    each line is a prompt, all else as in `defaults`; custom_id is "line-N", N from 1
///   others  OpenAI's batch format: a JSON object per line with "custom_id", "method", "url" and
///           "body"
/// Empty lines count for the numbers, but are no requests.
class CompletionFile {
 public:
  /// @throws FormatError if the file cannot be read, has too many lines, or no request.
  CompletionFile(const std::filesystem::path& path, CompletionRequest defaults);

  std::int64_t size() const { return static_cast<std::int64_t>(lines_.size()); }

  /// Request `index`; what is wrong with its line becomes its error. Thread-safe.
  CompletionLine read(std::int64_t index) const;

 private:
  struct Line {
    std::string_view text;
    std::int64_t number;  // from 1
  };

  MappedFile file_;
  CompletionRequest defaults_;
  bool is_text_;
  std::vector<Line> lines_;
};

/// Reads one line of OpenAI's batch format. A field that would change the result and is not
/// supported is an error that names it; one without influence is skipped. Without
/// "max_tokens", /v1/completions gets OpenAI's 16 unless `defaults` has a limit.
CompletionLine parse_completion(std::string_view line, const CompletionRequest& defaults);

/// One chosen token as it is reported.
struct ReportedToken {
  std::string bytes;  ///< of its text
  float logprob = 0;
  struct Alternative {
    std::string bytes;
    float logprob = 0;
  };
  std::vector<Alternative> top;  ///< likeliest first
};

/// What became of a request.
struct Completion {
  std::string text;
  std::vector<std::int32_t> token_ids;  ///< all that were chosen, the one that ended it included
  FinishReason finish_reason = FinishReason::kNone;
  std::int64_t prompt_tokens = 0;
  std::optional<std::vector<ReportedToken>> logprobs;
};

/// What all answers of a job have in common.
struct CompletionJob {
  std::string model;
  std::int64_t created = 0;  ///< seconds since 1970
};

/// The line (with its end) that answers request `index`, in the format of OpenAI's batch output,
/// with the member "token_ids" added to the choice. A pure function of its arguments.
std::string completion_line(const CompletionJob& job, std::int64_t index,
                            std::string_view custom_id, Endpoint endpoint,
                            const Completion& completion);

/// The line (with its end) for a request that could not run.
std::string error_line(std::int64_t index, std::string_view custom_id, const RequestError& error);

}  // namespace mla::proto
