// Compiled for AVX-512, so it includes nothing but kernels.

#include "kernels/cpu/amx/chunk_loop.h"
#include "tests/kernels/amx_emulated.h"
#include "tests/kernels/emulated_tiles.h"

namespace mla::test {
namespace {

// Of an unnamed namespace, and so is every template that takes it.
struct Tiles : EmulatedTiles {};

}  // namespace

void decode_on_emulated_tiles(const kernels::DecodeParams& params, Range chunks, float* nodes,
                              const kernels::amx::Scratch& scratch) noexcept {
  kernels::amx::decode_with<Tiles>(params, chunks, nodes, scratch);
}

}  // namespace mla::test
