#include <algorithm>

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/m64_scores.cuh"
#include "kernels/cuda/sm90/m64_values.cuh"
#include "kernels/cuda/sm90/row_block_kernel.h"

// Fused MLA decode of 64 query rows per block on Hopper's tensor cores. A block is three
// warpgroups: one computes scores and softmax and holds most of the queries in registers, two have
// half of the value elements each, hold their sums in registers and keep the copy engine busy. So
// shared memory is free for three tiles of 64 keys, each both K and V:
//
//   scores    | Q K0^T | softmax | Q K1^T | softmax | Q K2^T | softmax | ...
//   values                       | P0 V0 |          | P1 V1 |          | P2 V2 | ...
//
// docs/hopper.md tells why it is built like this.

namespace mla::kernels::cuda::sm90 {
namespace {

using namespace m64;

template <bool kBf16, int kSlabs>
__global__ void __launch_bounds__(kThreads, 1)
    decode_m64_kernel(const __grid_constant__ DecodeArgs args,
                      const __grid_constant__ CUtensorMap map, int box_tokens,
                      int blocks_per_team) {
  extern __shared__ __align__(1024) std::uint8_t raw[];
  auto& shared = *reinterpret_cast<Shared<kSlabs>*>(raw);
  const int team = static_cast<int>(blockIdx.x) / blocks_per_team;
  const int block_in_team = static_cast<int>(blockIdx.x) % blocks_per_team;
  let_next_grid_start();
  if (threadIdx.x == 0) {
    prefetch_map(&map);
    for (int stage = 0; stage < kValueStages; ++stage) {
      for (auto& barrier : shared.values_full[stage]) init_barrier(shared_address(&barrier), 1);
      for (auto& barrier : shared.summed[stage]) init_barrier(shared_address(&barrier), 4);
      init_barrier(shared_address(&shared.weighted[stage]), 4);
    }
    for (auto& barrier : shared.tail_full) init_barrier(shared_address(&barrier), 1);
    init_barrier(shared_address(&shared.taken), 8);
    init_barrier(shared_address(&shared.rest), 4);
    fence_barrier_init();
  }
  __syncthreads();

  // The same for all threads of a warp, which the compiler must know.
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / kGroup, 0);
  if (group == 0) {
    take_registers<kScoreRegisters>();
    Scorer<kBf16, kSlabs> scorer(shared, args);
    scorer.run(team, block_in_team);
  } else {
    give_registers<kValueRegisters>();
    const Loader loader(args, map, box_tokens, team);
    if (group == 1) {
      Summer<kBf16, kSlabs, 0> summer(shared, args);
      summer.run(loader, team, block_in_team);
      summer.run_merges(team, block_in_team, blocks_per_team);
    } else {
      Summer<kBf16, kSlabs, 1> summer(shared, args);
      summer.run(loader, team, block_in_team);
      summer.run_merges(team, block_in_team, blocks_per_team);
    }
  }
}

class DecodeM64 final : public RowBlockKernel {
 public:
  std::string_view name() const override { return "sm90-m64"; }

  KernelGeometry geometry(std::span<const DeviceItem> items, const PlanSizes&,
                          const DeviceInfo& device) const override {
    std::int64_t most_rows = 0;
    for (const DeviceItem& item : items) most_rows = std::max(most_rows, item.rows.size());
    // Blocks of a team read the same keys at the same time, so memory is read once.
    const int blocks = most_rows > kRows ? 2 : 1;
    return {.teams = std::max(1, device.multiprocessors / blocks),
            .blocks_per_team = blocks,
            .rows_per_part = blocks * kRows,
            .tile_tokens = kTokens};
  }

 private:
  RowBlockChoice choose(const DecodeArgs& args) const override {
    return choose_row_block(args, [](auto bf16, auto slabs) -> RowBlockChoice {
      return {decode_m64_kernel<bf16, slabs>, kThreads, sizeof(Shared<slabs>)};
    });
  }
};

}  // namespace

const DeviceKernel& decode_m64() {
  static const DecodeM64 kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda::sm90
