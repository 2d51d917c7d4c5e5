#include "launch/progress.h"

#include <chrono>
#include <cstdio>

#include <spdlog/spdlog.h>
#include <unistd.h>

#include "dist/activity.h"

namespace mla::launch {

Progress::Progress(bool enabled) {
  if (enabled) reporter_ = std::thread([this] { report_until_stopped(); });
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

void Progress::begin_step(double done, double share) {
  const std::lock_guard lock(mutex_);
  share_done_ = done;
  step_share_ = share;
  step_chunks_ = 0;
}

std::atomic<std::int64_t>* Progress::count(std::int64_t chunks) {
  const std::lock_guard lock(mutex_);
  step_chunks_ = chunks;
  auto& chunks_done = dist::activity().chunks_done;
  chunks_done = 0;
  return &chunks_done;
}

void Progress::report_until_stopped() {
  const auto interval = std::chrono::seconds(isatty(STDERR_FILENO) != 0 ? 1 : 10);
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, interval, [this] { return stopped_; })) {
    double share = share_done_;
    if (step_chunks_ > 0) {
      const auto done = static_cast<double>(dist::activity().chunks_done);
      share += step_share_ * done / static_cast<double>(step_chunks_);
    }
    spdlog::info("rank 0: {:.0f} % done", 100 * share);
  }
}

}  // namespace mla::launch
