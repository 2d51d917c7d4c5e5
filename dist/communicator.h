#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <mpi.h>

#include "core/error.h"

namespace mla::dist {

/// MPI from construction to destruction, with MPI_THREAD_SERIALIZED. One per process, in main.
class Environment {
 public:
  Environment(int& argc, char**& argv);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
};

/// "Open MPI v4.1.4, ..." in one line.
std::string mpi_version();

/// An error that every rank of the communicator throws together; rank 0 alone needs to report it.
class CollectiveError : public Error {
 public:
  using Error::Error;
};

/// A communicator of our own (never MPI_COMM_WORLD itself). Failing MPI calls throw MpiError.
class Communicator {
 public:
  /// A duplicate of MPI_COMM_WORLD. Collective.
  static Communicator world();
  /// This process alone. Local.
  static Communicator self();
  /// The ranks that share this rank's node. Collective.
  Communicator node() const;
  /// The ranks that give the same `color`, in the order of their ranks here. Collective.
  Communicator split(int color) const;

  ~Communicator();
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm handle() const { return comm_; }

  void barrier() const;  ///< Collective.

  /// Every rank gets rank `root`'s bytes, of any number. Collective.
  void broadcast(std::vector<std::byte>& bytes, int root = 0) const;

  /// Every rank's `value`, by rank. Collective.
  template <class T>
  std::vector<T> all_gather(const T& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> all(static_cast<std::size_t>(size_));
    all_gather_bytes(&value, all.data(), sizeof(T));
    return all;
  }

  /// Runs `work` on every rank. If it threw on any, all ranks throw a CollectiveError with the
  /// message of the lowest such rank. Collective.
  void together(const std::function<void()>& work) const;

  /// Runs `work` on rank 0; all ranks throw together if it threw. Collective.
  void on_root(const std::function<void()>& work) const;

 private:
  explicit Communicator(MPI_Comm owned);
  void all_gather_bytes(const void* mine, void* all, std::size_t bytes) const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
};

/// Throws MpiError unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// Ends the job on all ranks, at once. For an error that one rank alone has met, when the others
/// may be waiting for it.
[[noreturn]] void abort_job(ExitCode code);

}  // namespace mla::dist
