#include "dist/communicator.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>
#include <utility>

#include "dist/activity.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kBroadcastSliceBytes = std::int64_t{1} << 30;  // MPI counts are ints

/// A failure as it travels between ranks.
struct Failure {
  ExitCode code = ExitCode::kDone;
  std::string line;
};

Failure run_guarded(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const Error& error) {
    return {error.exit_code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kBadInput, "out of memory; expected a smaller batch or more ranks"};
  } catch (const std::exception& error) {
    return {ExitCode::kBadInput, error.what()};
  }
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw MpiError(call, std::string(text, static_cast<std::size_t>(length)));
}

void abort_job(ExitCode code) {
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::abort();
}

Environment::Environment(int& argc, char**& argv) {
  int provided = 0;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_SERIALIZED) {
    throw MpiError("MPI_Init_thread", "the library gives no MPI_THREAD_SERIALIZED");
  }
}

Environment::~Environment() {
  MPI_Finalize();
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, static_cast<std::size_t>(length));
  return version.substr(0, version.find(','));
}

Communicator Communicator::world() {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  return Communicator(comm);
}

Communicator Communicator::self() {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_SELF, &comm), "MPI_Comm_dup");
  return Communicator(comm);
}

Communicator Communicator::node() const {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &comm),
            "MPI_Comm_split_type");
  return Communicator(comm);
}

Communicator Communicator::split(int color) const {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm_, color, rank_, &comm), "MPI_Comm_split");
  return Communicator(comm);
}

Communicator::Communicator(MPI_Comm owned) : comm_(owned) {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

Communicator::Communicator(Communicator&& other) noexcept
    : comm_(std::exchange(other.comm_, MPI_COMM_NULL)), rank_(other.rank_), size_(other.size_) {}

Communicator::~Communicator() {
  if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

void Communicator::barrier() const {
  const Waiting waiting;
  check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
}

void Communicator::broadcast(std::vector<std::byte>& bytes, int root) const {
  const Waiting waiting;
  auto size = static_cast<std::int64_t>(bytes.size());
  check_mpi(MPI_Bcast(&size, 1, MPI_INT64_T, root, comm_), "MPI_Bcast");
  bytes.resize(static_cast<std::size_t>(size));
  for (std::int64_t done = 0; done < size; done += kBroadcastSliceBytes) {
    const auto count = static_cast<int>(std::min(kBroadcastSliceBytes, size - done));
    check_mpi(MPI_Bcast(bytes.data() + done, count, MPI_BYTE, root, comm_), "MPI_Bcast");
  }
}

void Communicator::all_gather_bytes(const void* mine, void* all, std::size_t bytes) const {
  const auto count = static_cast<int>(bytes);
  const Waiting waiting;
  check_mpi(MPI_Allgather(mine, count, MPI_BYTE, all, count, MPI_BYTE, comm_), "MPI_Allgather");
}

std::vector<std::vector<std::byte>> Communicator::gather(std::span<const std::byte> mine) const {
  const auto size = static_cast<int>(mine.size());
  const std::vector<int> sizes = all_gather(size);
  std::vector<int> offsets(sizes.size());
  std::exclusive_scan(sizes.begin(), sizes.end(), offsets.begin(), 0);
  std::vector<std::byte> all(rank_ == 0 ? static_cast<std::size_t>(offsets.back() + sizes.back())
                                        : 0);
  const Waiting waiting;
  check_mpi(MPI_Gatherv(mine.data(), size, MPI_BYTE, all.data(), sizes.data(), offsets.data(),
                        MPI_BYTE, 0, comm_),
            "MPI_Gatherv");
  std::vector<std::vector<std::byte>> parts;
  for (std::size_t r = 0; rank_ == 0 && r < sizes.size(); ++r) {
    parts.emplace_back(all.begin() + offsets[r], all.begin() + offsets[r] + sizes[r]);
  }
  return parts;
}

void Communicator::together(const std::function<void()>& work) const {
  const Failure mine = run_guarded(work);
  constexpr int kNobody = std::numeric_limits<int>::max();
  const int failed = mine.code == ExitCode::kDone ? kNobody : rank_;
  int first_failed = kNobody;
  {
    const Waiting waiting;
    check_mpi(MPI_Allreduce(&failed, &first_failed, 1, MPI_INT, MPI_MIN, comm_), "MPI_Allreduce");
  }
  if (first_failed == kNobody) return;

  int code = static_cast<int>(mine.code);
  check_mpi(MPI_Bcast(&code, 1, MPI_INT, first_failed, comm_), "MPI_Bcast");
  std::vector<std::byte> line(mine.line.size());
  std::transform(mine.line.begin(), mine.line.end(), line.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  broadcast(line, first_failed);
  throw CollectiveError(static_cast<ExitCode>(code),
                        std::string(reinterpret_cast<const char*>(line.data()), line.size()));
}

void Communicator::on_root(const std::function<void()>& work) const {
  together([&] {
    if (rank_ == 0) work();
  });
}

}  // namespace mla::dist
