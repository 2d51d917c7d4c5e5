#pragma once

namespace mla::launch {

inline constexpr double kSecondsPerHour = 3600;  ///< of --max-hours

/// From construction to destruction, SIGUSR1 and SIGTERM ask this process to stop at the next
/// opportunity instead of ending it. One at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  /// True once a signal has come.
  bool has_come() const;
};

}  // namespace mla::launch
