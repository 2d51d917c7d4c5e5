#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/reference/compare.h"
#include "tests/support/problem.h"

namespace mla::test {

/// The backends that this machine can run, those added included.
std::vector<const kernels::HostBackend*> usable_backends();

/// The backend's name as a part of a test's name, in which GoogleTest allows no hyphens.
std::string test_name(const kernels::HostBackend& backend);

/// Adds a backend that only tests have; called before the tests are listed. Returns true, so that
/// it can initialise a variable.
bool add_backend(const kernels::HostBackend& backend);

/// Memory at a cache line's begin.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::int64_t size);
  std::byte* data() const { return begin_; }
  std::span<std::byte> span() const { return {begin_, static_cast<std::size_t>(size_)}; }

 private:
  std::unique_ptr<std::byte[]> storage_;
  std::byte* begin_;
  std::int64_t size_;
};

/// Partials of some maximal tree nodes, in memory of their own.
struct Nodes {
  std::int64_t rows = 0;
  std::int64_t d_v = 0;
  std::int64_t count = 0;
  std::vector<float> floats;

  PartialView operator[](std::int64_t i) {
    return partial_at(floats.data() + i * partial_floats(rows, d_v), rows, d_v);
  }
};

/// Runs HostBackend::decode for `chunks` with nodes and workspace poisoned with NaN before, and
/// checks that nothing beyond either was written.
/// @throws std::runtime_error if something was.
Nodes decode_nodes(const kernels::HostBackend& backend, const kernels::DecodeParams& params,
                   Range chunks);

/// All chunks of the request, so one node; the empty partial if there is no chunk.
Nodes decode_whole(const kernels::HostBackend& backend, const kernels::DecodeParams& params);

/// Finished results of a problem: out [total_q, h_q, d_v], lse [total_q, h_q].
struct Results {
  std::vector<float> out;
  std::vector<float> lse;
};
struct ExactResults {
  std::vector<double> out;
  std::vector<double> lse;
};

/// Decodes every request and finalises. Work is shared out to OpenMP threads.
Results run_backend(const kernels::HostBackend& backend, const Problem& problem);
ExactResults run_oracle(const Problem& problem);

kernels::Comparison compare_results(const Results& results, const ExactResults& exact);

}  // namespace mla::test
