#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "kernels/backend.h"
#include "kernels/projected_decode.h"
#include "launch/bench/contender.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// What one run over a layer reads besides the queries.
struct LayerTurn {
  const kernels::PackedProjections* weights = nullptr;
  std::vector<const std::int32_t*> block_tables;  ///< [requests]
};

/// Attention with its projections at one point, for one backend: the batch, its queries and
/// several copies of the weights. What several contenders take turns at.
class ProjectedLayer {
 public:
  /// Packs the weights, so often that they fill the last-level caches several times, once if `hot`.
  /// `pool` and `backend` must outlive it.
  ProjectedLayer(const Point& point, const Pool& pool, const kernels::HostBackend& backend,
                 bool hot);

  const Point& point() const { return point_; }
  const Batch& batch() const { return batch_; }
  const kernels::HostBackend& backend() const { return backend_; }
  kernels::ProjectionDims dims() const { return {point_.d_nope, point_.d_v_head}; }
  std::int64_t total_q() const { return point_.batch * point_.query_len; }

  KvView kv() const { return pool_.view(point_.page_block_size, point_.shape.d_qk); }
  /// Of all requests; each query is its nope part, then its rope part.
  kernels::ProjectedQueries queries() const;

  /// Weights and pages that have left the caches since a run read them; the same ones if hot.
  /// Valid as long as the layer is.
  LayerTurn next_turn();

  /// Compares a sample of the results of a run over `turn` with the oracle.
  kernels::Comparison check(const LayerTurn& turn, const RowReader& read_row) const;

 private:
  void choose_turn();
  ExactRow compute_exactly(const LayerTurn& turn, std::int64_t request, std::int64_t row) const;
  kernels::HeadMatrices w_uk() const;
  kernels::HeadMatrices w_uv() const;

  Point point_;
  const Pool& pool_;
  const kernels::HostBackend& backend_;
  bool hot_;
  Batch batch_;
  std::vector<std::uint16_t> queries_;  // [total_q, heads, d_nope + d_rope]
  std::vector<std::uint16_t> weight_;   // as kv_b_proj.weight
  std::vector<kernels::PackedProjections> packed_;
  PageDealer pages_;
  std::int64_t turns_ = 0;
  LayerTurn turn_;
};

}  // namespace mla::launch::bench
