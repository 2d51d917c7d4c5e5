#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// MLPs of one shape, down(silu(gate x) * up x), each for some of the rows. The ranks of a group
/// share the rows of every matrix:
///
///   x (all) -> gate and up: own rows -> gather -> down: own rows -> y
class Mlp {
 public:
  /// What one MLP is for.
  struct Part {
    const MlpWeights* weights;
    Range rows;  ///< of x and y
  };

  /// Both must outlive it. Collective over `group`.
  Mlp(const RankContext& context, const Communicator& group, std::int64_t max_rows,
      std::int64_t intermediate_size);

  /// y [rows, columns] <- columns `columns` of what the MLPs put out. Collective over the group.
  /// @param parts the same on all ranks; together all rows, in order
  /// @param x [rows, hidden]
  /// @param y_stride elements between rows
  void run(std::span<const Part> parts, const float* x, Range columns, float* y,
           std::int64_t y_stride);

  /// This rank's columns of one MLP of x [rows, hidden] into `out`. Collective over the group.
  void run(const MlpWeights& weights, std::int64_t rows, const float* x, ColumnGather& out);

  /// Of one rank of a group of `ranks`, at most.
  static std::int64_t buffer_bytes(std::int64_t max_rows, std::int64_t intermediate_size,
                                   int ranks);

 private:
  void activate(std::int64_t rows);

  const RankContext& context_;
  ColumnGather activations_;  // [rows, intermediate]
  AlignedBuffer<float> up_;   // [rows, own part of intermediate]
  std::vector<kernels::LinearParams> layers_;
};

}  // namespace mla::dist
