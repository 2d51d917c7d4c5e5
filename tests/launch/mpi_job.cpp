#include "tests/launch/mpi_job.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mla::launch {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::string> command_of(int ranks, const std::vector<std::string>& arguments) {
  std::vector<std::string> command;
  if (ranks > 0) {
    command = {"mpirun", "--oversubscribe",     "--bind-to", "none",
               "-n",     std::to_string(ranks), "--mca",     "odls_base_sigkill_timeout",
               "0"};
  }
  command.push_back(std::string(MLA_BINARY_DIR) + "/bin/meshmla");
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

/// Becomes the command, in a session of its own, so that all its processes can be found.
[[noreturn]] void become(std::vector<std::string> command, const std::string& out,
                         const std::string& err) {
  ::setsid();
  ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0666), STDOUT_FILENO);
  ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT, 0666), STDERR_FILENO);
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  std::vector<char*> pointers;
  for (std::string& word : command) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  ::_exit(127);
}

/// The session of a process that has not ended; 0 if it has.
pid_t session_of(const std::string& pid) {
  const std::string stat = read_text("/proc/" + pid + "/stat");
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  char state = 'Z';
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  fields >> state >> parent >> group >> session;
  return state == 'Z' || state == 'X' ? 0 : session;
}

/// The rank that a process of an MPI job is; -1 if it is none.
int rank_of(pid_t pid) {
  const std::string environment = read_text("/proc/" + std::to_string(pid) + "/environ");
  const std::string key = "OMPI_COMM_WORLD_RANK=";
  const std::size_t at = environment.find(key);
  return at == std::string::npos ? -1 : std::atoi(environment.c_str() + at + key.size());
}

}  // namespace

MpiJob::MpiJob(int ranks, const std::vector<std::string>& arguments) : num_ranks_(ranks) {
  const auto command = command_of(ranks, arguments);
  leader_ = ::fork();
  if (leader_ == 0) become(command, folder_ / "out", folder_ / "err");
}

MpiJob::~MpiJob() {
  for (const pid_t pid : processes()) ::kill(pid, SIGKILL);
  if (!ended_) wait();
}

std::vector<pid_t> MpiJob::processes() const {
  std::vector<pid_t> pids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (session_of(name) == leader_) pids.push_back(std::stoi(name));
  }
  return pids;
}

std::vector<pid_t> MpiJob::ranks() const {
  std::vector<pid_t> pids(static_cast<std::size_t>(std::max(1, num_ranks_)), 0);
  if (num_ranks_ == 0) return {leader_};
  for (const pid_t pid : processes()) {
    const int rank = rank_of(pid);
    if (rank >= 0 && rank < num_ranks_) pids[static_cast<std::size_t>(rank)] = pid;
  }
  return pids;
}

int MpiJob::wait() {
  if (!ended_) ::waitpid(leader_, &status_, 0);
  ended_ = true;
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
}

bool MpiJob::has_ended() {
  if (!ended_) ended_ = ::waitpid(leader_, &status_, WNOHANG) == leader_;
  return ended_;
}

bool MpiJob::is_gone_within(double seconds) const {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (!processes().empty()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::vector<std::string> MpiJob::errors() const {
  std::vector<std::string> lines;
  std::istringstream text(read_text(folder_ / "err"));
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("meshmla:")) lines.push_back(line);
  }
  return lines;
}

bool has_journals(const TempDir& folder) {
  return std::ranges::any_of(folder.files(),
                             [](const std::string& file) { return file.ends_with(".journal"); });
}

void wait_for_journals(const TempDir& folder, MpiJob& job) {
  while (!has_journals(folder) && !job.has_ended()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

void stop_midway(const TempDir& folder, int ranks, const std::vector<std::string>& arguments,
                 int signal) {
  MpiJob job(ranks, arguments);
  std::vector<pid_t> pids;
  do {
    pids = job.ranks();
  } while (std::ranges::count(pids, 0) > 0 && !job.has_ended());
  std::erase(pids, 0);
  wait_for_journals(folder, job);
  // A fast machine might be done before mpirun has passed the signal on.
  for (const pid_t pid : pids) ::kill(pid, SIGSTOP);
  ::kill(job.leader(), signal);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  for (const pid_t pid : pids) ::kill(pid, SIGCONT);
  EXPECT_EQ(job.wait(), kStopped);
  EXPECT_THAT(job.errors(), testing::Contains(testing::ContainsRegex(
                                " [0-9]+ of [0-9]+ requests done; go on with --resume")));
  EXPECT_TRUE(has_journals(folder));
}

}  // namespace mla::launch
