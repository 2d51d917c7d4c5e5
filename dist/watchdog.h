#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "dist/beat_socket.h"
#include "dist/communicator.h"
#include "dist/roll.h"

namespace mla::dist {

/// Ends this process with ExitCode::kPeerLost, and with it the job, where it could only wait for
/// ever. A thread of its own on every rank, which uses no MPI, looks after three things:
///
/// - Heartbeats. Each rank sends one to rank 0 every second, over UDP, and rank 0 answers it. Rank
///   0 gives up when a rank was silent for 10 s, another rank when rank 0 was. A rank that computes
///   beats all the same; one that is stopped, or was cut off, does not. Where no heartbeat ever
///   came through (UDP may be blocked), nobody is missed, and rank 0 warns once.
/// - Progress. Rank 0 gives up when no rank that it hears of has finished a chunk, a call or a
///   phase for the time limit, and says who works and who waits.
/// - The launcher. When the process that started this one is gone, nobody else would end it.
///
/// A job that is suspended and continued as a whole is not taken for dead: a thread that did not
/// run itself has missed nobody. It reads what `activity()` shows.
class Watchdog {
 public:
  /// Starts to watch. `timeout_seconds` of no progress end the job; 0: no limit. Collective.
  Watchdog(const Communicator& comm, double timeout_seconds);
  /// Says goodbye, so that nobody misses this rank. Local.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void watch();
  void beat();
  void listen(double now);
  void judge(double now);
  void warn_of_unheard() const;
  std::string place_of(int rank) const;
  [[noreturn]] void give_up(const std::string& reason) const;

  int rank_;
  double timeout_;
  int launcher_;                    ///< process that started this one
  std::vector<std::string> hosts_;  ///< of every rank
  BeatSocket socket_;
  std::vector<BeatAddress> root_;  ///< where rank 0 may be reached
  BeatAddress answer_;             ///< where it answered from, when it last did
  double answered_at_;
  Roll roll_;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace mla::dist
