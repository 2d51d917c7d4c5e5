#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/projected_decode.h"
#include "tests/support/runner.h"

namespace mla::test {

struct ProjectedSpec {
  ProblemSpec attention;
  kernels::ProjectionDims dims{32, 16};
};

/// A batch, its cache, its queries and kv_b_proj.weight, all random.
class ProjectedModel {
 public:
  explicit ProjectedModel(const ProjectedSpec& spec);

  const Batch& batch() const { return batch_; }
  const kernels::ProjectionDims& dims() const { return spec_.dims; }
  const Problem& problem() const { return *problem_; }
  std::int64_t total_q() const { return query_offsets(batch_).back(); }
  std::int64_t d_rope() const { return spec_.attention.shape.d_qk - spec_.attention.shape.d_v; }

  kernels::HeadMatrices w_uk() const;
  kernels::HeadMatrices w_uv() const;

  /// Each query row is (nope, rope), as q_proj leaves it.
  kernels::ProjectedInputs inputs() const;

  /// The requests `requests` alone.
  ProjectedModel only(Range requests) const;

 private:
  ProjectedSpec spec_;
  std::shared_ptr<const Problem> problem_;
  Batch batch_;
  std::vector<const std::int32_t*> block_tables_;
  std::vector<std::uint16_t> weight_;
  std::vector<std::uint16_t> queries_;
};

/// Runs the fused operator in a workspace full of NaN with a canary behind it.
Results run_fused(const ProjectedModel& model, const kernels::HostBackend& backend,
                  const kernels::ProjectedPlan& plan);
Results run_fused(const ProjectedModel& model, const kernels::HostBackend& backend,
                  int threads = 2);

bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace mla::test
