#pragma once

#include "kernels/backend.h"

namespace mla::kernels {

/// Plain softmax attention of `params.rows` over all keys in fp64, straight from the definition:
/// all scores of a row, their maximum, then one weighted sum. What every backend is measured
/// against. Rows are shared out to OpenMP threads.
/// @param out [rows, d_v]; zeros for a row that sees no key
/// @param lse [rows] natural-log log-sum-exp of the scaled scores; +inf for a row that sees no key
void oracle(const DecodeParams& params, double* out, double* lse);

}  // namespace mla::kernels
