#include <algorithm>

#include <cuda_runtime.h>

#include "core/range.h"
#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/row_block_kernel.h"
#include "kernels/cuda/sm90/seesaw_loader.cuh"
#include "kernels/cuda/sm90/seesaw_merge.cuh"
#include "kernels/cuda/sm90/seesaw_results.cuh"
#include "kernels/cuda/sm90/seesaw_side.cuh"

// Fused MLA decode of 64 query rows per block on Hopper's tensor cores, for fast plans. Two
// warpgroups compute, one keeps the copy engine busy; two tiles of 64 keys lie in shared memory, x
// (the even ones) and y. The left side computes the scores of x and has the first half of the
// value elements, the right one those of y and the second half, so that while one takes the softmax
// of its tile the tensor cores work for the other:
//
//   left   | Q Kx | softmax x | Px Vx left |          | Py Vy left | Q Kx (next) ...
//   right     Q Ky            | Px Vx right, softmax y | Py Vy right | Q Ky (next) ...
//
// The schedule is that of FlashMLA's "seesaw" with one difference: the right side adds x's values
// while it takes its own softmax. docs/hopper.md has the details.

namespace mla::kernels::cuda::sm90 {
namespace {

using namespace seesaw;

/// The query rows to `to`, four of 4 * kRows threads to a row; zeros past the last row and past
/// d_qk. They may be multiplied after a barrier.
template <int kSlabs>
__device__ __forceinline__ void copy_queries(const DecodeArgs& args, const Work& work,
                                             std::uint8_t (&to)[kSlabs][kSlabBytes], int thread) {
  const int r = thread / 4;
  const std::uint16_t* const from = query(args, work, r);
  const std::uint32_t row = shared_address(to) + r * 128;
#pragma unroll
  for (int i = 0; i < 2 * kSlabs; ++i) {
    const int piece = 4 * i + thread % 4;  // of 16 bytes
    const bool is_there = from != nullptr && piece * 8 < args.d_qk;
    copy_16(row + i / 2 * kSlabBytes + (piece % 8 ^ (r % 8)) * 16,
            is_there ? from + piece * 8 : args.q, is_there ? 16 : 0);
  }
  wait_for_copies();
  fence_async_proxy();
}

/// What a side, 0 the left one, does of the team's parts.
template <bool kBf16, int kSlabs>
__device__ void compute(const DecodeArgs& args, Memory<kSlabs>& shared, int team, int block_in_team,
                        int half) {
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread % kGroup / 32 * 16 + thread % 32 / 4;
  std::uint32_t parities = 0;
  wait_for_previous_grid();
  for (int index = team; index >= 0;) {
    const Work work(args, index, block_in_team);
    if (work.part.rows == 0) break;  // a team without parts
    copy_queries(args, work, shared.q, thread);
    sync_threads(kAll, kConsumers);
    using W = Writer<kBf16, kSlabs>;
    float o[W::kOut];
#pragma unroll
    for (float& x : o) x = 0;
    RowState rows(args, work, row);
    if (half == 0) {
      Side<kBf16, kSlabs, 0> side(shared, args, work, parities, rows);
      side.run(o);
      parities = side.parities;
    } else {
      Side<kBf16, kSlabs, 1> side(shared, args, work, parities, rows);
      side.run(o);
      parities = side.parities;
    }
    const Work again(args, index, block_in_team);  // registers are short in between
    W(shared, args, half).write(again, o, rows);
    if (again.part.merge >= 0) arrive_at_merge(args, again.part.merge, thread, ConsumerBarrier{});
    index = again.part.next;
  }
}

template <bool kBf16, int kSlabs>
__global__ void __launch_bounds__(kBlockThreads, 1)
    decode_seesaw_kernel(const __grid_constant__ DecodeArgs args,
                         const __grid_constant__ CUtensorMap map, int box_tokens,
                         int blocks_per_team) {
  extern __shared__ __align__(1024) std::uint8_t raw[];
  auto& shared = *reinterpret_cast<Memory<kSlabs>*>(raw);
  const int team = static_cast<int>(blockIdx.x) / blocks_per_team;
  const int block_in_team = static_cast<int>(blockIdx.x) % blocks_per_team;
  let_next_grid_start();
  if (threadIdx.x == 0) {
    prefetch_map(&map);
    for (int tile = 0; tile < 2; ++tile) {
      for (auto& barrier : shared.full[tile]) init_barrier(shared_address(&barrier), 1);
      for (auto& barrier : shared.empty[tile]) init_barrier(shared_address(&barrier), 4);
    }
    init_barrier(shared_address(&shared.merge_full), 1);
    fence_barrier_init();
  }
  __syncthreads();

  // The same for all threads of a warp, which the compiler must know.
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / kGroup, 0);
  if (group == 2) {
    give_registers<kLoaderRegisters>();
    const int half = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / 32 % 4, 0);
    if (half < 2) {
      wait_for_previous_grid();
      load_half(Loader(args, map, box_tokens, team), shared, half);
    }
    return;
  }
  take_registers<kConsumerRegisters>();
  compute<kBf16>(args, shared, team, block_in_team, group);
  run_merges<kBf16>(args, shared, team, block_in_team, blocks_per_team);
}

/// Blocks of a team read the same keys at the same time, so memory is read once: as many as the
/// items have blocks of rows, unless too many would have no rows.
int blocks_per_team(std::span<const DeviceItem> items) {
  constexpr int kMost = 4;
  constexpr double kIdle = 1.1;
  int best = 1;
  double least = 0;
  for (int blocks = 1; blocks <= kMost; ++blocks) {
    double work = 0;
    for (const DeviceItem& item : items) {
      work += static_cast<double>(item.context_len * blocks *
                                  ceil_div(item.rows.size(), blocks * kRows));
    }
    if (blocks == 1) least = work;
    if (work <= kIdle * least) best = blocks;
  }
  return best;
}

class DecodeSeesaw final : public RowBlockKernel {
 public:
  std::string_view name() const override { return "sm90-seesaw"; }

  std::string why_unsupported(const DecodeArgs& args) const override {
    if (args.exact) return "it adds up tiles without what rounding weights took (fast plans only)";
    return RowBlockKernel::why_unsupported(args);
  }

  KernelGeometry geometry(std::span<const DeviceItem> items, const PlanSizes&,
                          const DeviceInfo& device) const override {
    const int blocks = blocks_per_team(items);
    return {.teams = std::clamp(device.multiprocessors / blocks, 1, kMostTeams),
            .blocks_per_team = blocks,
            .rows_per_part = blocks * kRows,
            .tile_tokens = kTokens,
            .costs = {.part = 3, .merge = 4}};
  }

 private:
  RowBlockChoice choose(const DecodeArgs& args) const override {
    return choose_row_block(args, [](auto bf16, auto slabs) -> RowBlockChoice {
      return {decode_seesaw_kernel<bf16, slabs>, kBlockThreads, sizeof(Memory<slabs>)};
    });
  }
};

}  // namespace

const DeviceKernel& decode_seesaw() {
  static const DecodeSeesaw kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda::sm90
