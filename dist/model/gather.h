#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/range.h"
#include "dist/communicator.h"

namespace mla::dist {

/// A matrix [rows, width] in fp32 of which each rank of a group computes an even part of the
/// columns, and which then all have:
///
///              columns   | rank 0 | rank 1 | rank 2 |
///     before   rank 1    |        | ###### |        |    local()
///     after    rank 1    | ###### | ###### | ###### |    what `gather` returns
///
/// On one node there is one such matrix for all: each rank writes its columns in place, and
/// `gather` is a barrier. There are two of them, used in turn, so that nobody writes what another
/// still reads. Between nodes the columns travel.
class ColumnGather {
 public:
  enum class Way : std::uint8_t { kSharedOnOneNode, kMessages };

  /// Columns are dealt out in units of `unit`, a divisor of `width`. `group` must outlive it.
  /// Collective.
  ColumnGather(const Communicator& group, std::int64_t max_rows, std::int64_t width,
               std::int64_t unit = 1, Way way = Way::kSharedOnOneNode);
  ~ColumnGather();  ///< Collective.
  ColumnGather(const ColumnGather&) = delete;
  ColumnGather& operator=(const ColumnGather&) = delete;

  Range columns() const { return columns_of(group_.rank()); }
  /// Where this rank's columns go until the next `gather`: element (row, c) at
  /// local()[row * stride() + c - columns().begin].
  float* local() { return is_shared() ? shared_[turn_] + columns().begin : local_.data(); }
  std::int64_t stride() const { return is_shared() ? width_ : columns().size(); }

  /// Brings `rows` rows together: [rows, width], to be read until the next call. Collective.
  const float* gather(std::int64_t rows);

  /// Of one rank, at most.
  static std::int64_t bytes(std::int64_t max_rows, std::int64_t width, int ranks);

 private:
  bool is_shared() const { return window_ != MPI_WIN_NULL; }
  Range columns_of(int rank) const {
    const Range units = even_part(width_ / unit_, group_.size(), rank);
    return {units.begin * unit_, units.end * unit_};
  }
  void share(std::int64_t max_rows);
  void receive(std::int64_t rows);

  const Communicator& group_;
  std::int64_t width_;
  std::int64_t unit_;

  MPI_Win window_ = MPI_WIN_NULL;  // on one node
  float* shared_[2] = {};          // [rows, width]
  int turn_ = 0;

  AlignedBuffer<float> local_;       // [rows, columns]; of one rank or several nodes
  std::vector<std::int64_t> sizes_;  // columns, by rank; of several nodes, as what follows
  AlignedBuffer<float> received_;    // by rank: [rows, its columns]
  AlignedBuffer<float> whole_;       // [rows, width]
};

/// Rows of `row_floats` floats of all ranks, one rank's after the other: `counts` rows of each.
/// Collective.
void gather_rows(const Communicator& comm, std::span<const std::int64_t> counts,
                 std::int64_t row_floats, const float* mine, float* all);

/// Sends `send_counts[r]` floats to each rank r and gets `receive_counts[r]`, both packed by rank.
/// Collective.
void exchange_floats(const Communicator& comm, std::span<const std::int64_t> send_counts,
                     const float* send, std::span<const std::int64_t> receive_counts,
                     float* received);

}  // namespace mla::dist
