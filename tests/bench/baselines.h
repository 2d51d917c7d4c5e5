#pragma once

#include <cstdint>
#include <span>

#include "core/aligned_buffer.h"
#include "dist/communicator.h"

namespace mla::bench {

/// What others do with one rank's partials of every row of a batch, where each request's keys are
/// striped over all ranks: m[rows] to base 2, l[rows], o[rows, d_v]. Memory is kept from run to
/// run, but for what MPI allocates in a call.
class Baselines {
 public:
  /// Some numbers; others on each rank. `comm` must outlive the object; rows % comm.size() == 0.
  Baselines(const dist::Communicator& comm, std::int64_t rows, std::int64_t d_v);
  ~Baselines();
  Baselines(const Baselines&) = delete;
  Baselines& operator=(const Baselines&) = delete;

  /// Writes all partials anew, as the end of a decode would.
  void rewrite();

  /// As vLLM's and SGLang's decode context parallelism: all ranks gather the log-sum-exps of all
  /// rows, each scales its outputs, a reduce-scatter sums them. Returns this rank's rows of the
  /// result, which are [rows / ranks, d_v]. Collective.
  std::span<const float> gather_and_reduce_scatter();

  /// An allreduce of (m, l, o) with the merge as a user-defined operation. Returns the results of
  /// all rows, [rows, d_v]. Collective.
  std::span<const float> user_op_allreduce();

 private:
  const dist::Communicator& comm_;
  std::int64_t rows_;
  std::int64_t d_v_;
  AlignedBuffer<float> m_log2_;
  AlignedBuffer<float> l_;
  AlignedBuffer<float> o_;

  AlignedBuffer<float> lse_;
  AlignedBuffer<float> all_lse_;
  AlignedBuffer<float> scaled_;
  AlignedBuffer<float> own_rows_;

  MPI_Datatype row_type_ = MPI_DATATYPE_NULL;  // m, l, o[d_v]
  MPI_Op merge_ = MPI_OP_NULL;
  AlignedBuffer<float> packed_;
  AlignedBuffer<float> merged_;
  AlignedBuffer<float> all_rows_;
};

}  // namespace mla::bench
