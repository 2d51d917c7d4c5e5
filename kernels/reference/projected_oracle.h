#pragma once

#include <cstdint>
#include <span>

#include "core/batch.h"
#include "kernels/projected_decode.h"

namespace mla::kernels {

/// The fused operator in fp64 straight from its definition: queries are absorbed and rounded to the
/// cache's type, which is part of the definition; every head attends to all keys that it sees,
/// values are projected, and nothing else is rounded.
/// @param out [total_q, h_q, d_v_head]; zeros for a row that sees no key
/// @param lse [total_q, h_q] natural log; +inf for a row that sees no key
void projected_oracle(const Batch& batch, const HeadMatrices& w_uk, const HeadMatrices& w_uv,
                      const ProjectedInputs& inputs, std::span<double> out, std::span<double> lse);

/// from [d_in] times the matrix of `head`, in fp64: into [d_out].
void multiply_exactly(const HeadMatrices& matrices, std::int64_t head, const double* from,
                      double* into);

}  // namespace mla::kernels
