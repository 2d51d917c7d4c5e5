#include "dist/progress_thread.h"

#include <chrono>

namespace mla::dist {
namespace {

constexpr std::chrono::microseconds kInterval{500};  // a call takes a few microseconds

}  // namespace

ProgressThread::ProgressThread(Combine& combine) : combine_(combine) {
  if (combine.needs_progress()) thread_ = std::thread([this] { run(); });
}

ProgressThread::~ProgressThread() {
  end();
}

void ProgressThread::stop() {
  end();
  if (error_) std::rethrow_exception(error_);
}

void ProgressThread::end() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void ProgressThread::run() {
  try {
    std::unique_lock lock(mutex_);
    while (!stopped_ && !combine_.progress()) wake_.wait_for(lock, kInterval);
  } catch (...) {
    error_ = std::current_exception();
  }
}

}  // namespace mla::dist
