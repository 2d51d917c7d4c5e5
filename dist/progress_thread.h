#pragma once

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "dist/combine.h"

namespace mla::dist {

/// Keeps an exchange moving while the calling thread computes: Open MPI moves larger messages only
/// when it is called. Between construction and stop() nobody else may use `combine` or MPI.
class ProgressThread {
 public:
  explicit ProgressThread(Combine& combine);
  ~ProgressThread();
  ProgressThread(const ProgressThread&) = delete;
  ProgressThread& operator=(const ProgressThread&) = delete;

  /// Ends the thread. @throws what progress() threw
  void stop();

 private:
  void run();
  void end();

  Combine& combine_;
  std::exception_ptr error_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace mla::dist
