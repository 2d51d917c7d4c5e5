#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "core/batch.h"
#include "core/partition.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/node_decoder.h"

namespace mla::kernels::cuda {

/// One rank's decode on the current GPU. Copies the queries, and of the cache the pages that the
/// pieces read, to the GPU; a run computes, and copies open partials back. Results are written to
/// the host's memory as they come, so most are there before the last request is done.
///
///   inputs ──upload──> pages, tables, q ──kernel──> out, lse (host) ─────> results
///                                            └────> nodes ────download──> open items
///
/// Where other ranks have chunks of a request, its partials are those of the canonical tree, also
/// if not all is to be `exact`.
/// @throws Unsupported if none of `kernels` can run the batch, CudaError if memory is short
std::unique_ptr<NodeDecoder> make_device_decoder(std::string_view backend,
                                                 const KernelList& kernels, const Batch& batch,
                                                 std::span<const Piece> pieces,
                                                 const RankInputs& inputs,
                                                 const DecoderOptions& options);

}  // namespace mla::kernels::cuda
