#include "launch/progress.h"

#include <chrono>
#include <cstdio>

#include <spdlog/spdlog.h>
#include <unistd.h>

namespace mla::launch {

Progress::Progress(std::int64_t total, bool enabled) : total_(total) {
  if (enabled && total > 0) reporter_ = std::thread([this] { report_until_stopped(); });
}

Progress::~Progress() {
  if (!reporter_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stop_.notify_one();
  reporter_.join();
}

void Progress::report_until_stopped() {
  const auto interval = std::chrono::seconds(isatty(STDERR_FILENO) != 0 ? 1 : 10);
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, interval, [this] { return stopped_; })) {
    const std::int64_t done = dist::activity().chunks_done - done_before_;
    spdlog::info("rank 0: {} of {} chunks ({:.0f} %)", done, total_,
                 100.0 * static_cast<double>(done) / static_cast<double>(total_));
  }
}

}  // namespace mla::launch
