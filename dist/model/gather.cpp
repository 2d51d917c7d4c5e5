#include "dist/model/gather.h"

#include <algorithm>
#include <limits>
#include <string>

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
                           std::int64_t unit)
    : group_(group), width_(width), unit_(unit), local_(max_rows * columns().size()) {
  for (int r = 0; r < group.size(); ++r) sizes_.push_back(columns_of(r).size());
  if (group.size() == 1) return;
  received_ = AlignedBuffer<float>(max_rows * width);
  whole_ = AlignedBuffer<float>(max_rows * width);
}

std::int64_t ColumnGather::bytes(std::int64_t max_rows, std::int64_t width, int ranks) {
  const std::int64_t local = ceil_div(width, ranks);
  return max_rows * (ranks == 1 ? local : local + 2 * width) * 4;
}

const float* ColumnGather::gather(std::int64_t rows) {
  const int ranks = group_.size();
  if (ranks == 1) return local_.data();
  gather_rows(group_, sizes_, rows, local_.data(), rows == 1 ? whole_.data() : received_.data());
  if (rows == 1) return whole_.data();

  const float* from = received_.data();
  for (int r = 0; r < ranks; ++r) {
    const Range columns = columns_of(r);
    for (std::int64_t row = 0; row < rows; ++row, from += columns.size()) {
      std::copy_n(from, columns.size(), whole_.data() + row * width_ + columns.begin);
    }
  }
  return whole_.data();
}

void gather_rows(const Communicator& comm, std::span<const std::int64_t> counts,
                 std::int64_t row_floats, const float* mine, float* all) {
  const MpiCounts sizes(counts, row_floats);
  check_mpi(MPI_Allgatherv(mine, sizes.counts[comm.rank()], MPI_FLOAT, all, sizes.counts.data(),
                           sizes.offsets.data(), MPI_FLOAT, comm.handle()),
            "MPI_Allgatherv");
}

void exchange_floats(const Communicator& comm, std::span<const std::int64_t> send_counts,
                     const float* send, std::span<const std::int64_t> receive_counts,
                     float* received) {
  const MpiCounts sent(send_counts, 1);
  const MpiCounts got(receive_counts, 1);
  check_mpi(MPI_Alltoallv(send, sent.counts.data(), sent.offsets.data(), MPI_FLOAT, received,
                          got.counts.data(), got.offsets.data(), MPI_FLOAT, comm.handle()),
            "MPI_Alltoallv");
}

}  // namespace mla::dist
