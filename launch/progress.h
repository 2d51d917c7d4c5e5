#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace mla::launch {

/// Reports on standard error how far rank 0 is, from construction to destruction: every second on a
/// terminal, every ten elsewhere, never for work that is done before the first report.
class Progress {
 public:
  /// Not `enabled`: does nothing.
  explicit Progress(bool enabled);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Of all work, the share `done` is done; a step begins that is the share `share`.
  void begin_step(double done, double share);

  /// The counter in which rank 0 counts its chunks of the step, of which there are `chunks`: the
  /// one of `dist::activity()`, where the watchdog sees it too.
  std::atomic<std::int64_t>* count(std::int64_t chunks);

 private:
  void report_until_stopped();

  std::mutex mutex_;       // of what follows
  double share_done_ = 0;  // before this step
  double step_share_ = 0;
  std::int64_t step_chunks_ = 0;
  bool stopped_ = false;
  std::condition_variable stop_;
  std::thread reporter_;
};

}  // namespace mla::launch
