#include "kernels/cpu/cpu_backend.h"

#include "kernels/fold_decode.h"

namespace mla::kernels::cpu {

std::int64_t CpuBackend::workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                                         std::int64_t max_context_len) const {
  std::int64_t bytes = 0;
  lay_out(nullptr, shape, fold_spill_floats(shape.d_v, chunk_tokens, max_context_len), bytes);
  return bytes;
}

void CpuBackend::decode(const DecodeParams& params, Range chunks, float* nodes,
                        std::span<std::byte> workspace) const noexcept {
  std::int64_t bytes = 0;
  const Scratch scratch = lay_out(workspace.data(), params.shape, 0, bytes);
  kernel(params.kv.dtype).decode(params, chunks, nodes, scratch);
}

}  // namespace mla::kernels::cpu
