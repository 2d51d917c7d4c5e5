#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/batch.h"
#include "kernels/backend.h"
#include "kernels/projected_plan.h"
#include "kernels/projected_steps.h"
#include "kernels/projected_weights.h"

namespace mla::kernels {

/// Tensors of the fused operator, not owned.
struct ProjectedInputs {
  KvView kv;
  std::span<const std::int32_t* const> block_tables;  ///< [requests]
  ProjectedQueries queries;  ///< of all requests, packed; heads [0, batch.shape.h_q)
};
struct ProjectedOutputs {
  void* out = nullptr;   ///< [total_q, h_q, d_v_head] of batch.out_dtype
  float* lse = nullptr;  ///< [total_q, h_q], natural log; +inf where no key is seen
};

/// Bytes of memory that `decode_projected` works in, for all threads of the plan.
std::int64_t projected_workspace_bytes(const Batch& batch, const ProjectedPlan& plan,
                                       const PackedProjections& weights,
                                       const HostBackend& backend);

/// The fused operator on the plan's number of threads: for every token and head
///   q   = (q_nope W_UK, q_rope)      the product rounded to batch.dtype
///   o   = attention of q             rounded to batch.dtype
///   out = o W_UV
/// where `batch` describes the absorbed attention: d_qk = d_latent + d_rope, d_v = d_latent. Of its
/// requests only the lengths are read. Absorbed queries and o stay in the workspace, a few MiB per
/// thread. A thread that has done its tiles helps others with the attention of theirs. The bits of
/// a row depend on its query, its cache and the weights alone: not on the batch, the plan or the
/// threads. Allocates nothing.
/// @param workspace aligned to 64 bytes, projected_workspace_bytes
/// @pre weights and inputs.kv are of batch.dtype, and the weights have batch.shape.h_q heads
void decode_projected(const Batch& batch, const ProjectedPlan& plan,
                      const PackedProjections& weights, const HostBackend& backend,
                      const ProjectedInputs& inputs, const ProjectedOutputs& outputs,
                      std::span<std::byte> workspace) noexcept;

}  // namespace mla::kernels
