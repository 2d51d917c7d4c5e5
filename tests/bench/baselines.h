#pragma once

#include <cstdint>
#include <vector>

#include "dist/communicator.h"

namespace mla::bench {

/// One rank's partials of every row of a batch, as where each request's keys are striped over all
/// ranks: m[rows] to base 2, l[rows], o[rows, d_v].
struct StripedPartials {
  std::int64_t rows = 0;
  std::int64_t d_v = 0;
  std::vector<float> m_log2;
  std::vector<float> l;
  std::vector<float> o;
};

/// Some numbers; others on each rank.
StripedPartials make_striped_partials(std::int64_t rows, std::int64_t d_v, int rank);

/// Writes all of them anew, as the end of a decode would.
void rewrite(StripedPartials& partials);

/// As vLLM's and SGLang's decode context parallelism: all ranks gather the log-sum-exps of all
/// rows, each scales its outputs, a reduce-scatter sums them. Returns this rank's rows of the
/// result, which are [rows / ranks, d_v]. Collective; rows % ranks == 0.
std::vector<float> gather_and_reduce_scatter(const dist::Communicator& comm,
                                             const StripedPartials& partials);

/// An allreduce of (m, l, o) with the merge as a user-defined operation. Returns the results of all
/// rows, [rows, d_v]. Collective.
std::vector<float> user_op_allreduce(const dist::Communicator& comm,
                                     const StripedPartials& partials);

}  // namespace mla::bench
