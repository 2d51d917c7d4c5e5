#include "tests/bench/baselines.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/partial.h"

namespace mla::bench {
namespace {

std::int64_t op_d_v = 0;  // MPI gives a user-defined operation no place for it

/// Rows of m, l, o[d_v].
void merge_rows(void* from, void* into, int* rows, MPI_Datatype* /*type*/) {
  const std::int64_t floats = op_d_v + 2;
  auto* a = static_cast<float*>(into);
  auto* b = static_cast<float*>(from);
  for (int row = 0; row < *rows; ++row, a += floats, b += floats) {
    merge_partials({a, a + 1, a + 2, 1, op_d_v}, {b, b + 1, b + 2, 1, op_d_v});
  }
}

}  // namespace

StripedPartials make_striped_partials(std::int64_t rows, std::int64_t d_v, int rank) {
  std::minstd_rand random(static_cast<unsigned>(rank + 1));
  std::uniform_real_distribution<float> some(0.5F, 1.5F);
  StripedPartials partials{rows, d_v, {}, {}, {}};
  std::generate_n(std::back_inserter(partials.m_log2), rows, [&] { return some(random); });
  std::generate_n(std::back_inserter(partials.l), rows, [&] { return some(random) * 100; });
  std::generate_n(std::back_inserter(partials.o), rows * d_v, [&] { return some(random); });
  return partials;
}

void rewrite(StripedPartials& partials) {
  std::fill(partials.m_log2.begin(), partials.m_log2.end(), 1.0F);
  std::fill(partials.l.begin(), partials.l.end(), 1.0F);
  std::fill(partials.o.begin(), partials.o.end(), 1.0F);
}

std::vector<float> gather_and_reduce_scatter(const dist::Communicator& comm,
                                             const StripedPartials& partials) {
  const std::int64_t rows = partials.rows;
  const std::int64_t d_v = partials.d_v;
  std::vector<float> lse(rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    lse[r] = partials.m_log2[r] + std::log2(partials.l[r]);
  }
  std::vector<float> all(rows * comm.size());
  dist::check_mpi(MPI_Allgather(lse.data(), static_cast<int>(rows), MPI_FLOAT, all.data(),
                                static_cast<int>(rows), MPI_FLOAT, comm.handle()),
                  "MPI_Allgather");
  std::vector<float> scaled(rows * d_v);
  for (std::int64_t r = 0; r < rows; ++r) {
    float largest = kEmptyM;
    for (int rank = 0; rank < comm.size(); ++rank) {
      largest = std::max(largest, all[rank * rows + r]);
    }
    float sum = 0;
    for (int rank = 0; rank < comm.size(); ++rank) {
      sum += std::exp2(all[rank * rows + r] - largest);
    }
    const float scale = std::exp2(lse[r] - largest) / (sum * partials.l[r]);
    for (std::int64_t d = 0; d < d_v; ++d) scaled[r * d_v + d] = partials.o[r * d_v + d] * scale;
  }
  std::vector<float> mine(rows / comm.size() * d_v);
  dist::check_mpi(
      MPI_Reduce_scatter_block(scaled.data(), mine.data(), static_cast<int>(mine.size()), MPI_FLOAT,
                               MPI_SUM, comm.handle()),
      "MPI_Reduce_scatter_block");
  return mine;
}

std::vector<float> user_op_allreduce(const dist::Communicator& comm,
                                     const StripedPartials& partials) {
  const std::int64_t d_v = partials.d_v;
  op_d_v = d_v;
  MPI_Datatype row_type = MPI_DATATYPE_NULL;
  MPI_Op merge = MPI_OP_NULL;
  dist::check_mpi(MPI_Type_contiguous(static_cast<int>(d_v + 2), MPI_FLOAT, &row_type),
                  "MPI_Type_contiguous");
  dist::check_mpi(MPI_Type_commit(&row_type), "MPI_Type_commit");
  dist::check_mpi(MPI_Op_create(merge_rows, 1, &merge), "MPI_Op_create");
  std::vector<float> mine(partials.rows * (d_v + 2));
  for (std::int64_t r = 0; r < partials.rows; ++r) {
    float* row = mine.data() + r * (d_v + 2);
    row[0] = partials.m_log2[r];
    row[1] = partials.l[r];
    std::copy_n(partials.o.data() + r * d_v, d_v, row + 2);
  }
  std::vector<float> merged(mine.size());
  dist::check_mpi(MPI_Allreduce(mine.data(), merged.data(), static_cast<int>(partials.rows),
                                row_type, merge, comm.handle()),
                  "MPI_Allreduce");
  MPI_Op_free(&merge);
  MPI_Type_free(&row_type);
  std::vector<float> out(partials.rows * d_v);
  for (std::int64_t r = 0; r < partials.rows; ++r) {
    const float* row = merged.data() + r * (d_v + 2);
    for (std::int64_t d = 0; d < d_v; ++d) out[r * d_v + d] = row[2 + d] / row[1];
  }
  return out;
}

}  // namespace mla::bench
