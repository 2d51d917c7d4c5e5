#pragma once

#include <atomic>
#include <cstdint>

namespace mla::dist {

/// What a rank is at, in the order in which a job goes through it.
enum class Phase : std::uint8_t {
  kStart,
  kLoad,      ///< reading and checking the batch
  kPlan,      ///< cutting it over ranks
  kData,      ///< reading or making tensors
  kCompute,   ///< decoding
  kExchange,  ///< sending and receiving partials
  kMerge,
  kWrite,
  kEnd,  ///< has no more to do with the others
};

/// "load", "plan", ...
const char* name_of(Phase phase);

/// What this process is doing, for those who watch it: set by the thread that works, read by any.
struct Activity {
  std::atomic<Phase> phase{Phase::kStart};
  std::atomic<bool> waits{false};            ///< for an answer of other ranks
  std::atomic<std::int64_t> calls{0};        ///< that waited, and are over
  std::atomic<std::int64_t> chunks_done{0};  ///< in this step of the job
};

/// The one of this process.
Activity& activity();

/// From here on this process is at `phase`.
inline void enter(Phase phase) {
  activity().phase = phase;
}

/// Marks the calling scope as one that waits for other ranks. Not to be nested.
class Waiting {
 public:
  Waiting() { activity().waits = true; }
  ~Waiting() {
    activity().waits = false;
    ++activity().calls;
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
};

}  // namespace mla::dist
