#include "dist/watchdog.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dist/activity.h"

namespace mla::dist {
namespace {

constexpr double kBeatSeconds = 1;
/// After so long without an answer a rank tries all addresses of rank 0 again.
constexpr double kAnswerSeconds = 3;
constexpr double kSilenceSeconds = 10;
/// Ranks after the first give up this much later than rank 1 does, so that one line is printed
/// where the launcher ends the job at once.
constexpr double kAfterYouSeconds = 2;
/// A thread that ran this much later than it wanted to cannot judge the silence of others.
constexpr double kOwnGapSeconds = 2;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Page faults and blocks of 512 bytes that count as one step: 2 MiB from a disk, 16 MiB of memory
/// filled. A process that only waits has a few of either.
constexpr std::int64_t kMovesPerStep = 4096;

std::int64_t data_steps() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return (usage.ru_minflt + usage.ru_majflt + usage.ru_inblock + usage.ru_oublock) / kMovesPerStep;
}

Signs my_signs() {
  const Activity& a = activity();
  return {a.calls + a.chunks_done + data_steps(), a.phase, a.waits};
}

using HostName = std::array<char, 64>;

std::vector<std::string> hosts_of_ranks(const Communicator& comm) {
  HostName mine{};
  gethostname(mine.data(), mine.size() - 1);
  std::vector<std::string> hosts;
  for (const HostName& host : comm.all_gather(mine)) hosts.emplace_back(host.data());
  return hosts;
}

std::uint64_t job_token(const Communicator& comm) {
  std::random_device random;
  const std::uint64_t token = std::uint64_t{random()} << 32 | random();
  return comm.all_gather(token).front();
}

std::vector<BeatAddress> addresses_of_root(const Communicator& comm, const BeatSocket& socket) {
  std::vector<BeatAddress> addresses = socket.addresses();
  std::vector<std::byte> bytes(addresses.size() * sizeof(BeatAddress));
  std::memcpy(bytes.data(), addresses.data(), bytes.size());
  comm.broadcast(bytes);
  addresses.resize(bytes.size() / sizeof(BeatAddress));
  std::memcpy(addresses.data(), bytes.data(), bytes.size());
  return addresses;
}

/// Starts a thread that leaves all signals to the others.
template <class Work>
std::thread thread_without_signals(Work work) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(work);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

std::string seconds_text(double seconds) {
  return std::to_string(std::lround(std::ceil(seconds))) + " s";
}

}  // namespace

Watchdog::Watchdog(const Communicator& comm, double timeout_seconds)
    : rank_(comm.rank()),
      timeout_(timeout_seconds),
      launcher_(getppid()),
      hosts_(hosts_of_ranks(comm)),
      socket_(job_token(comm)),
      root_(addresses_of_root(comm, socket_)),
      answered_at_(now_seconds() - kAnswerSeconds),
      roll_(comm.size(), now_seconds()) {
  thread_ = thread_without_signals([this] { watch(); });
}

Watchdog::~Watchdog() {
  enter(Phase::kEnd);
  stopped_ = true;
  socket_.wake();
  thread_.join();
  for (int i = 0; i < 3; ++i) beat();  // some may get lost
}

void Watchdog::watch() {
  const double start = now_seconds();
  double last_run = start;
  double next_beat = start;
  bool warned = rank_ != 0;
  while (!stopped_) {
    if (now_seconds() >= next_beat) {
      beat();
      next_beat = now_seconds() + kBeatSeconds;
    }
    socket_.wait(static_cast<int>(std::max(0.0, next_beat - now_seconds()) * 1000) + 1);
    const double now = now_seconds();
    if (now - last_run > kBeatSeconds + kOwnGapSeconds) roll_.forgive(now);
    last_run = now;
    listen(now);
    judge(now);
    if (!warned && now - start > kSilenceSeconds) {
      warn_of_unheard();
      warned = true;
    }
  }
}

void Watchdog::beat() {
  const Signs signs = my_signs();
  const double now = now_seconds();
  if (rank_ == 0) {
    roll_.note(0, signs, now);
  } else if (now - answered_at_ < kAnswerSeconds) {
    socket_.send(answer_, rank_, signs);
  } else {
    for (const BeatAddress& address : root_) socket_.send(address, rank_, signs);
  }
}

void Watchdog::listen(double now) {
  while (const auto received = socket_.receive()) {
    const auto& [beat, from] = *received;
    if (beat.rank < 0 || beat.rank >= static_cast<int>(hosts_.size())) continue;
    roll_.note(beat.rank, beat.signs, now);
    if (rank_ == 0) {
      socket_.send(from, 0, my_signs());
    } else {
      answer_ = from;
      answered_at_ = now;
    }
  }
}

void Watchdog::judge(double now) {
  if (getppid() != launcher_) give_up("the process that started this rank is gone");
  const double patience = kSilenceSeconds + (rank_ > 1 ? kAfterYouSeconds : 0);
  if (const auto lost = roll_.silent_rank(patience, now)) {
    give_up(place_of(*lost) + ": no heartbeat for " + seconds_text(patience) +
            ", last heard of in " + name_of(roll_.phase_of(*lost)) + "; expected one every second");
  }
  const double news_seconds = 2 * kBeatSeconds;  // what we know may be so old
  if (rank_ == 0 && timeout_ > 0 &&
      roll_.seconds_without_progress(now) >= timeout_ + news_seconds) {
    give_up("no progress for " + seconds_text(timeout_) + ": " + roll_.who_does_what() +
            "; expected some within --timeout");
  }
}

void Watchdog::warn_of_unheard() const {
  const std::vector<int> unheard = roll_.unheard();
  if (unheard.empty()) return;
  std::fprintf(stderr,
               "meshmla: warning: no heartbeats from %s (does the network block UDP?); if one is "
               "lost, only --timeout ends the job\n",
               list_of(unheard).c_str());
}

std::string Watchdog::place_of(int rank) const {
  return "rank " + std::to_string(rank) + " on " + hosts_[rank];
}

void Watchdog::give_up(const std::string& reason) const {
  const Signs signs = my_signs();
  std::fprintf(stderr, "meshmla: error: %s; %s, %s %s, ends the job\n", reason.c_str(),
               place_of(rank_).c_str(), signs.waits ? "waiting in" : "at work in",
               name_of(signs.phase));
  // MPI_Abort asks the launcher and waits for its answer, but the launcher may be what is lost. It
  // notices the end of this process just as well.
  std::_Exit(static_cast<int>(ExitCode::kPeerLost));
}

}  // namespace mla::dist
