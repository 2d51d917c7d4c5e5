#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dist/activity.h"

namespace mla::dist {

/// What a rank shows of itself in a heartbeat.
struct Signs {
  std::int64_t steps = 0;  ///< changes while it gets on
  Phase phase = Phase::kStart;
  bool waits = false;  ///< for other ranks

  bool operator==(const Signs&) const = default;
};

/// What one rank has heard of the others and when, and what follows from it. Times are seconds of
/// any clock that never goes back.
class Roll {
 public:
  Roll(int ranks, double now);

  /// `rank` showed `signs`. After Phase::kEnd its silence means nothing.
  void note(int rank, const Signs& signs, double now);

  /// Starts all clocks anew: we did not listen for a while, so that nobody was silent in it.
  void forgive(double now);

  /// A rank that was heard once and then not for `limit` seconds: the lowest one.
  std::optional<int> silent_rank(double limit, double now) const;

  /// Seconds in which no rank that was heard showed anything new.
  double seconds_without_progress(double now) const { return now - last_change_; }

  /// Ranks of which nothing was ever heard.
  std::vector<int> unheard() const;

  Phase phase_of(int rank) const { return ranks_[rank].signs.phase; }

  /// Who waits and who does not, like "rank 2 at work in compute, ranks 0-1,3 waiting in exchange".
  std::string who_does_what() const;

 private:
  struct Rank {
    bool heard = false;
    double last_heard = 0;
    Signs signs;
  };
  std::vector<Rank> ranks_;
  double last_change_;
};

/// "rank 4" or "ranks 0-2,7". `ranks` must be sorted and not empty.
std::string list_of(const std::vector<int>& ranks);

}  // namespace mla::dist
