#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "dist/activity.h"

namespace mla::launch {

/// Reports on standard error how far rank 0 is, from construction to destruction: every second on a
/// terminal, every ten elsewhere, never for work that is done before the first report. Counts in
/// `dist::activity()`, where the watchdog sees it.
class Progress {
 public:
  /// `total` chunks will be counted in `chunks_done()`. Not `enabled`: does nothing.
  Progress(std::int64_t total, bool enabled);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  std::atomic<std::int64_t>* chunks_done() { return &dist::activity().chunks_done; }

 private:
  void report_until_stopped();

  std::int64_t total_;
  std::int64_t done_before_ = dist::activity().chunks_done;
  bool stopped_ = false;
  std::mutex mutex_;
  std::condition_variable stop_;
  std::thread reporter_;
};

}  // namespace mla::launch
