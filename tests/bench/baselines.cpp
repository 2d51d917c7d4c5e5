#include "tests/bench/baselines.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/every_cpu.h"
#include "core/partial.h"

namespace mla::bench {
namespace {

std::int64_t op_d_v = 0;  // MPI gives a user-defined operation no place for it

/// Rows of m, l, o[d_v].
MLA_FOR_EVERY_CPU
void merge_rows(void* from, void* into, int* rows, MPI_Datatype* /*type*/) {
  const std::int64_t floats = op_d_v + 2;
  auto* a = static_cast<float*>(into);
  auto* b = static_cast<float*>(from);
  for (int row = 0; row < *rows; ++row, a += floats, b += floats) {
    merge_partials({a, a + 1, a + 2, 1, op_d_v}, {b, b + 1, b + 2, 1, op_d_v});
  }
}

MLA_FOR_EVERY_CPU
void scale_row(const float* row, std::int64_t count, float scale, float* scaled) {
  for (std::int64_t i = 0; i < count; ++i) scaled[i] = row[i] * scale;
}

}  // namespace

Baselines::Baselines(const dist::Communicator& comm, std::int64_t rows, std::int64_t d_v)
    : comm_(comm),
      rows_(rows),
      d_v_(d_v),
      m_log2_(rows),
      l_(rows),
      o_(rows * d_v),
      lse_(rows),
      all_lse_(rows * comm.size()),
      scaled_(rows * d_v),
      own_rows_(rows / comm.size() * d_v),
      packed_(rows * (d_v + 2)),
      merged_(rows * (d_v + 2)),
      all_rows_(rows * d_v) {
  std::minstd_rand random(static_cast<unsigned>(comm.rank() + 1));
  std::uniform_real_distribution<float> some(0.5F, 1.5F);
  for (float& m : m_log2_.span()) m = some(random);
  for (float& l : l_.span()) l = some(random) * 100;
  for (float& o : o_.span()) o = some(random);
  dist::check_mpi(MPI_Type_contiguous(static_cast<int>(d_v + 2), MPI_FLOAT, &row_type_),
                  "MPI_Type_contiguous");
  dist::check_mpi(MPI_Type_commit(&row_type_), "MPI_Type_commit");
  dist::check_mpi(MPI_Op_create(merge_rows, 1, &merge_), "MPI_Op_create");
}

Baselines::~Baselines() {
  MPI_Op_free(&merge_);
  MPI_Type_free(&row_type_);
}

void Baselines::rewrite() {
  std::ranges::fill(m_log2_.span(), 1.0F);
  std::ranges::fill(l_.span(), 1.0F);
  std::ranges::fill(o_.span(), 1.0F);
}

std::span<const float> Baselines::gather_and_reduce_scatter() {
  const float* const m_log2 = m_log2_.data();
  const float* const l = l_.data();
  float* const lse = lse_.data();
  for (std::int64_t r = 0; r < rows_; ++r) lse[r] = m_log2[r] + std::log2(l[r]);
  dist::check_mpi(MPI_Allgather(lse_.data(), static_cast<int>(rows_), MPI_FLOAT, all_lse_.data(),
                                static_cast<int>(rows_), MPI_FLOAT, comm_.handle()),
                  "MPI_Allgather");
  for (std::int64_t r = 0; r < rows_; ++r) {
    float largest = kEmptyM;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      largest = std::max(largest, all_lse_.data()[rank * rows_ + r]);
    }
    float sum = 0;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      sum += std::exp2(all_lse_.data()[rank * rows_ + r] - largest);
    }
    const float scale = std::exp2(lse[r] - largest) / (sum * l[r]);
    scale_row(o_.data() + r * d_v_, d_v_, scale, scaled_.data() + r * d_v_);
  }
  dist::check_mpi(
      MPI_Reduce_scatter_block(scaled_.data(), own_rows_.data(), static_cast<int>(own_rows_.size()),
                               MPI_FLOAT, MPI_SUM, comm_.handle()),
      "MPI_Reduce_scatter_block");
  return own_rows_.span();
}

std::span<const float> Baselines::user_op_allreduce() {
  op_d_v = d_v_;
  for (std::int64_t r = 0; r < rows_; ++r) {
    float* row = packed_.data() + r * (d_v_ + 2);
    row[0] = m_log2_.data()[r];
    row[1] = l_.data()[r];
    std::copy_n(o_.data() + r * d_v_, d_v_, row + 2);
  }
  dist::check_mpi(MPI_Allreduce(packed_.data(), merged_.data(), static_cast<int>(rows_), row_type_,
                                merge_, comm_.handle()),
                  "MPI_Allreduce");
  for (std::int64_t r = 0; r < rows_; ++r) {
    const float* row = merged_.data() + r * (d_v_ + 2);
    float* const result = all_rows_.data() + r * d_v_;
    for (std::int64_t d = 0; d < d_v_; ++d) result[d] = row[2 + d] / row[1];
  }
  return all_rows_.span();
}

}  // namespace mla::bench
