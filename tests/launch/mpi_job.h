#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "tests/launch/run_command.h"

namespace mla::launch {

inline constexpr int kStopped = 75;  ///< exit code of a job that was asked to stop

/// `meshmla ARGUMENTS` on `ranks` ranks (0: without mpirun), running while the test goes on, with
/// OMP_NUM_THREADS=1. Whatever is left of it is killed with the object.
class MpiJob {
 public:
  MpiJob(int ranks, const std::vector<std::string>& arguments);
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;
  ~MpiJob();

  /// mpirun, or meshmla itself without it.
  pid_t leader() const { return leader_; }
  /// The processes of the ranks, by rank; 0 for those that have not started or have ended.
  std::vector<pid_t> ranks() const;

  /// Waits until the leader ends. Its exit code; 128 and the signal's number if one ended it.
  int wait();
  /// True if all processes of the job have ended within `seconds`.
  bool is_gone_within(double seconds) const;
  bool has_ended();

  /// Lines of standard error that meshmla wrote, so far.
  std::vector<std::string> errors() const;

 private:
  std::vector<pid_t> processes() const;

  TemporaryFolder folder_;
  int num_ranks_;
  pid_t leader_ = 0;
  int status_ = 0;
  bool ended_ = false;
};

/// True if a job has left journals in `folder`.
bool has_journals(const TempDir& folder);

/// Returns once `job` has finished some requests, or has ended.
void wait_for_journals(const TempDir& folder, MpiJob& job);

/// Stops a job by `signal` when it has finished some requests. Expects that it says so, and
/// journals in `folder`.
void stop_midway(const TempDir& folder, int ranks, const std::vector<std::string>& arguments,
                 int signal);

}  // namespace mla::launch
