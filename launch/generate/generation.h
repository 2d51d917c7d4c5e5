#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "core/model_config.h"
#include "core/scheduler.h"
#include "dist/model/model_job.h"
#include "launch/generate/active_request.h"
#include "launch/generate/generation_stats.h"
#include "launch/generate/text_tools.h"
#include "proto/completions.h"

namespace mla::launch {

/// Where requests come from.
struct RequestSource {
  std::int64_t size = 0;
  std::function<proto::CompletionLine(std::int64_t request)> read;
};

/// Decodes requests on a model, many at a time. On rank 0.
///
///   requests -> tokens -> Scheduler -> ModelJob (all ranks) -> text -> answers
class Generation {
 public:
  struct Settings {
    std::int64_t max_context = 0;  ///< tokens of prompt and continuation
    std::uint64_t seed = 0;        ///< of requests without their own
  };
  struct Callbacks {
    /// A request's line of the output, once it is finished, in any order. `error` is null unless
    /// it failed.
    std::function<void(std::int64_t request, std::string_view line,
                       const proto::RequestError* error)>
        answer;
    /// Text of a request as it becomes certain; may be empty.
    std::function<void(std::int64_t request, std::string_view text)> text;
    /// Asked after each step: whether to leave the rest undone.
    std::function<bool()> should_stop;
  };

  /// All arguments must outlive it. `eos_ids` are the model's.
  Generation(const ModelConfig& config, const TextTools& tools, const RequestSource& requests,
             const proto::CompletionJob& job, const Settings& settings, Scheduler& scheduler,
             dist::ModelJob& model, Callbacks callbacks);

  /// Answers the requests for which `is_answered` is false. Returns early if asked to stop.
  void run(const std::function<bool(std::int64_t request)>& is_answered);

  const GenerationStats& stats() const { return stats_; }

 private:
  void admit(const std::function<bool(std::int64_t request)>& is_answered);
  void start(std::int64_t index, const proto::CompletionLine& line);
  void step();
  void take(std::int64_t index, const dist::RowChoice& choice);

  const ModelConfig& config_;
  const TextTools& tools_;
  const RequestSource& requests_;
  const proto::CompletionJob& job_;
  Settings settings_;
  Scheduler& scheduler_;
  dist::ModelJob& model_;
  Callbacks callbacks_;

  std::int64_t next_ = 0;                         // request that was not looked at yet
  std::map<std::int64_t, ActiveRequest> active_;  // by index
  GenerationStats stats_;
};

}  // namespace mla::launch
