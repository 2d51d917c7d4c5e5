#pragma once

#include "core/batch.h"
#include "kernels/backend.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// What a backend's kernels take on one rank, all its threads, by the terms of core/cost_model.h.
struct KernelSpeed {
  double flop_per_second = 0;      ///< for what query rows add to a chunk
  double seconds_per_kv_byte = 0;  ///< 0: unknown
  double padded_values = 0;
};

/// Measures what a chunk of a batch like `like` takes for all heads, for a vector of them and for
/// one, over as much cache as `MadeUpTensors` have, and no more than that batch. Local.
/// @throws what make_decoder throws
KernelSpeed measure_kernels(const Batch& like, const kernels::Backend& backend,
                            const kernels::DecoderOptions& options);

}  // namespace mla::dist
