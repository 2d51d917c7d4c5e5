#include <algorithm>

#include <cuda_runtime.h>

#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/m64_scores.cuh"
#include "kernels/cuda/sm90/m64_values.cuh"

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

using Kernel = void (*)(DecodeArgs, CUtensorMap, int, int);

struct Choice {
  Kernel kernel = nullptr;
  int shared_bytes = 0;
};

template <int kSlabs>
Choice choose(bool bf16) {
  return {bf16 ? decode_m64_kernel<true, kSlabs> : decode_m64_kernel<false, kSlabs>,
          static_cast<int>(sizeof(Shared<kSlabs>))};
}

Choice choose(const DecodeArgs& args) {
  const auto takes = [&args](int d_qk, int d_v) {
    return args.d_v == d_v && args.d_qk > d_v && args.d_qk <= d_qk;
  };
  if (takes(576, 512)) return choose<9>(args.bf16);
  if (takes(320, 256)) return choose<5>(args.bf16);
  return {};
}

class DecodeM64 final : public DeviceKernel {
 public:
  std::string_view name() const override { return "sm90-m64"; }

  std::string why_unsupported(const DecodeArgs& args) const override {
    if (choose(args).kernel == nullptr) {
      return "it takes rows of 513 to 576 elements with 512 values, and 257 to 320 with 256";
    }
    if (args.d_qk % 8 != 0 || args.q_token_stride % 8 != 0 || args.q_head_stride % 8 != 0) {
      return "rows and strides of queries must be multiples of 16 bytes";
    }
    if (!(args.scale_log2 > 0)) return "the softmax scale must be positive";
    return why_not_mapped(args);
  }

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

  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override {
    const Choice choice = choose(args);
    const int tokens = box_tokens(args);
    CUtensorMap map;
    if (const ErrorCode error = map_cache(args, tokens, map); error != cudaSuccess) return error;
    if (const cudaError_t error =
            cudaFuncSetAttribute(reinterpret_cast<const void*>(choice.kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, choice.shared_bytes);
        error != cudaSuccess) {
      return error;
    }
    cudaLaunchAttribute attributes[2];
    attributes[0].id = cudaLaunchAttributeCooperative;  // blocks wait for one another's parts
    attributes[0].val.cooperative = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = static_cast<unsigned>(geometry.teams * geometry.blocks_per_team);
    config.blockDim = kThreads;
    config.dynamicSmemBytes = static_cast<std::size_t>(choice.shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = 2;
    return cudaLaunchKernelEx(&config, choice.kernel, args, map, tokens, geometry.blocks_per_team);
  }
};

}  // namespace

const DeviceKernel& decode_m64() {
  static const DecodeM64 kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda::sm90
