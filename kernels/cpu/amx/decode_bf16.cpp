#include "kernels/cpu/amx/chunk_loop.h"
#include "kernels/cpu/amx/decode.h"
#include "kernels/cpu/amx/tiles.h"

namespace mla::kernels::amx {
namespace {

// Of an unnamed namespace, and so is every template that takes it.
struct Tiles : HardwareTiles {};

}  // namespace

void decode_bf16(const DecodeParams& params, Range chunks, float* nodes,
                 const Scratch& scratch) noexcept {
  decode_with<Tiles>(params, chunks, nodes, scratch);
}

}  // namespace mla::kernels::amx
