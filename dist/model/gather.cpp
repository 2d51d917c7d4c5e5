#include "dist/model/gather.h"

#include <algorithm>
#include <limits>
#include <string>

#include "dist/activity.h"

namespace mla::dist {
namespace {

/// Counts and offsets as MPI takes them, in units of `unit` floats.
struct MpiCounts {
  std::vector<int> counts;
  std::vector<int> offsets;

  MpiCounts(std::span<const std::int64_t> sizes, std::int64_t unit) {
    std::int64_t offset = 0;
    for (const std::int64_t size : sizes) {
      if (offset + size * unit > std::numeric_limits<int>::max()) {
        throw InvalidArgument("tokens of a step", "too many for one message",
                              "fewer than 2^31 floats in an exchange");
      }
      counts.push_back(static_cast<int>(size * unit));
      offsets.push_back(static_cast<int>(offset));
      offset += size * unit;
    }
  }
};

}  // namespace

ColumnGather::ColumnGather(const Communicator& group, std::int64_t max_rows, std::int64_t width,
                           std::int64_t unit, Way way)
    : group_(group), width_(width), unit_(unit) {
  if (way == Way::kSharedOnOneNode && group.size() > 1 && group.node().size() == group.size()) {
    share(max_rows);
    return;
  }
  local_ = AlignedBuffer<float>(max_rows * columns().size());
  if (group.size() == 1) return;
  for (int r = 0; r < group.size(); ++r) sizes_.push_back(columns_of(r).size());
  received_ = AlignedBuffer<float>(max_rows * width);
  whole_ = AlignedBuffer<float>(max_rows * width);
}

ColumnGather::~ColumnGather() {
  if (!is_shared()) return;
  MPI_Win_unlock_all(window_);
  MPI_Win_free(&window_);
}

std::int64_t ColumnGather::bytes(std::int64_t max_rows, std::int64_t width, int ranks) {
  return max_rows * (ranks == 1 ? width : ceil_div(width, ranks) + 2 * width) * 4;
}

void ColumnGather::share(std::int64_t max_rows) {
  const MPI_Aint bytes = group_.rank() == 0 ? 2 * max_rows * width_ * 4 : 0;
  void* memory = nullptr;
  check_mpi(MPI_Win_allocate_shared(bytes, sizeof(float), MPI_INFO_NULL, group_.handle(), &memory,
                                    &window_),
            "MPI_Win_allocate_shared");
  MPI_Aint size = 0;
  int unit_bytes = 0;
  check_mpi(MPI_Win_shared_query(window_, 0, &size, &unit_bytes, &memory), "MPI_Win_shared_query");
  check_mpi(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), "MPI_Win_lock_all");
  shared_[0] = static_cast<float*>(memory);
  shared_[1] = shared_[0] + max_rows * width_;
}

const float* ColumnGather::gather(std::int64_t rows) {
  if (group_.size() == 1) return local_.data();
  if (!is_shared()) {
    receive(rows);
    return whole_.data();
  }
  check_mpi(MPI_Win_sync(window_), "MPI_Win_sync");
  group_.barrier();
  check_mpi(MPI_Win_sync(window_), "MPI_Win_sync");
  turn_ = 1 - turn_;
  return shared_[1 - turn_];
}

void ColumnGather::receive(std::int64_t rows) {
  // One row comes as it is wanted; of several, each rank's come together.
  gather_rows(group_, sizes_, rows, local_.data(), rows == 1 ? whole_.data() : received_.data());
  if (rows == 1) return;
  const float* from = received_.data();
  for (int r = 0; r < group_.size(); ++r) {
    const Range columns = columns_of(r);
    for (std::int64_t row = 0; row < rows; ++row, from += columns.size()) {
      std::copy_n(from, columns.size(), whole_.data() + row * width_ + columns.begin);
    }
  }
}

void gather_rows(const Communicator& comm, std::span<const std::int64_t> counts,
                 std::int64_t row_floats, const float* mine, float* all) {
  const MpiCounts sizes(counts, row_floats);
  const Waiting waiting;
  check_mpi(MPI_Allgatherv(mine, sizes.counts[comm.rank()], MPI_FLOAT, all, sizes.counts.data(),
                           sizes.offsets.data(), MPI_FLOAT, comm.handle()),
            "MPI_Allgatherv");
}

void exchange_floats(const Communicator& comm, std::span<const std::int64_t> send_counts,
                     const float* send, std::span<const std::int64_t> receive_counts,
                     float* received) {
  const MpiCounts sent(send_counts, 1);
  const MpiCounts got(receive_counts, 1);
  const Waiting waiting;
  check_mpi(MPI_Alltoallv(send, sent.counts.data(), sent.offsets.data(), MPI_FLOAT, received,
                          got.counts.data(), got.offsets.data(), MPI_FLOAT, comm.handle()),
            "MPI_Alltoallv");
}

}  // namespace mla::dist
