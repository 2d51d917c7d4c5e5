#include <bit>
#include <string>

#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/cuda/sm90/kernels.h"
#include "kernels/cuda/sm90/m16_computer.cuh"
#include "kernels/cuda/sm90/m16_geometry.h"
#include "kernels/cuda/sm90/m16_loader.cuh"
#include "kernels/cuda/sm90/m16_mail_merge.cuh"
#include "kernels/cuda/sm90/tensor_map.h"

namespace mla::kernels::cuda::sm90 {
namespace {

using namespace m16;

template <bool kBf16, int kDQk, int kDV, int kBlocks>
__global__ void __launch_bounds__(kThreads, 1)
    decode(const __grid_constant__ CUtensorMap map, const __grid_constant__ DecodeArgs args,
           const __grid_constant__ LaunchParams launch) {
  using L = Layout<kDQk, kDV>;
  extern __shared__ __align__(1024) char memory[];
  let_next_grid_start();
  const std::uint32_t shared = shared_address(memory);
  if (threadIdx.x == kComputeThreads + 32) {
    prefetch_map(&map);
    for (int i = 0; i < L::kSlots; ++i) {
      init_barrier(shared + L::kFull + i * 8, 1);
      init_barrier(shared + L::kEmpty + i * 8, kGroupWarps);
    }
    init_barrier(shared + L::kReady, kBlocks);
    init_barrier(shared + L::kStatsReceived, 1);
    init_barrier(shared + L::kSlicesReceived, 1);
    init_barrier(shared + L::kMerged, 1);
    init_barrier(shared + L::kMergesRead, 1);
    fence_barrier_init();
  }
  const int team = static_cast<int>(blockIdx.x) / kBlocks;
  const int block = kBlocks > 1 ? static_cast<int>(block_of_cluster()) : 0;
  if (threadIdx.x / 32 == kComputeWarps) {
    Loader<kDQk, kDV, kBlocks> loader(&map, args, launch, shared, team, block);
    Worker::barrier_of_block();
    if constexpr (kBlocks > 1) cluster_arrive();
    loader.expect_first_tile();
    wait_for_previous_grid();
    loader.load_first_tile();
    if constexpr (kBlocks > 1) cluster_wait();
    loader.run();
    Worker::arrive_at_barrier_of_block();
    return;
  }
  copy_record(args.parts + team, shared + L::kPart, static_cast<int>(threadIdx.x));
  Worker::barrier_of_block();
  if constexpr (kBlocks > 1) cluster_arrive();
  auto& merges = *reinterpret_cast<TeamMerges*>(memory + L::kMerges);

  if (threadIdx.x >= kComputeThreads) {
    if (threadIdx.x == kComputeThreads + 32) {
      read_merges(args, team, merges);
      arrive(shared + L::kMergesRead);
    }
    wait_for_previous_grid();
    if constexpr (kBlocks > 1) cluster_wait();
    const std::uint32_t launches = __ldcg(args.counters + blockIdx.x);
    Worker::barrier_of_block();
    if (threadIdx.x == kComputeThreads + 32) args.counters[blockIdx.x] = launches + 1;
    return;
  }
  wait_for_previous_grid();
  if constexpr (kBlocks > 1) cluster_wait();
  const Worker worker(shared, block);
  const std::uint32_t launches = __ldcg(args.counters + blockIdx.x);
  Computer<kBf16, kDQk, kDV, kBlocks>(args, worker, launches).run();
  Worker::arrive_at_barrier_of_block();
  wait(shared + L::kMergesRead, 0);
#pragma unroll 1
  for (int i = merges.begin; i < merges.end; ++i) {
    const bool first = i == merges.begin;
    const MergeShare share = first ? merges.share : args.shares[i];
    const Merge& merge = first ? merges.merge : args.merges[share.merge];
    const int slice = share.first_block / kBlocks;
    if (!first) Worker::barrier_of_all();
    if (slice < merge.slices) {
      MailMerge<kDQk, kDV, kBlocks>(args, merge, slice, worker, launches).run();
    }
  }
}

using Kernel = void (*)(CUtensorMap, DecodeArgs, LaunchParams);

template <bool kBf16, int kDQk, int kDV>
Kernel kernel_of(int blocks) {
  switch (blocks) {
    case 1:
      return decode<kBf16, kDQk, kDV, 1>;
    case 2:
      return decode<kBf16, kDQk, kDV, 2>;
    case 4:
      return decode<kBf16, kDQk, kDV, 4>;
    case 8:
      return decode<kBf16, kDQk, kDV, 8>;
    default:
      return nullptr;
  }
}

struct Choice {
  Kernel kernel = nullptr;
  int shared_bytes = 0;
};

Choice choose(bool bf16, int d_qk, int blocks) {
  if (d_qk == 576) {
    return {bf16 ? kernel_of<true, 576, 512>(blocks) : kernel_of<false, 576, 512>(blocks),
            Layout<576, 512>::kBytes};
  }
  return {bf16 ? kernel_of<true, 320, 256>(blocks) : kernel_of<false, 320, 256>(blocks),
          Layout<320, 256>::kBytes};
}

cudaError_t allow_resources(const Choice& choice) {
  const void* kernel = reinterpret_cast<const void*>(choice.kernel);
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              choice.shared_bytes);
}

/// The cache as (element of a column, slot, column, KV head, page), read in boxes of one column of
/// some tokens, or of a whole slot of the ring.
ErrorCode describe_cache(const DecodeArgs& args, CUtensorMap& map) {
  const auto bytes = [](std::int64_t elements) { return static_cast<cuuint64_t>(elements * 2); };
  const auto columns = static_cast<cuuint32_t>(args.d_qk / 64);
  const auto tokens = static_cast<cuuint32_t>(box_tokens(args));
  const cuuint64_t sizes[5] = {64, static_cast<cuuint64_t>(args.page_block_size), columns,
                               static_cast<cuuint64_t>(args.h_kv),
                               static_cast<cuuint64_t>(args.num_pages)};
  const std::int64_t head_stride = args.h_kv > 1 ? args.kv_head_stride : args.token_stride;
  const cuuint64_t strides[4] = {bytes(args.token_stride), bytes(64), bytes(head_stride),
                                 bytes(args.page_stride)};
  const cuuint32_t slot_columns =
      args.d_qk == 576 ? Layout<576, 512>::kSlotColumns : Layout<320, 256>::kSlotColumns;
  const cuuint32_t box[5] = {64, tokens, tokens == kTileTokens ? slot_columns : 1, 1, 1};
  return map_tensor(args, sizes, strides, box, map);
}

bool is_multiple_of_8(std::int64_t stride) {
  return stride % 8 == 0;
}

bool is_aligned(const void* pointer) {
  return std::bit_cast<std::uintptr_t>(pointer) % 16 == 0;
}

/// Teams of each size that the current GPU runs at the same time, by the driver's word.
M16Residency residency_of(const DeviceInfo& device) {
  M16Residency residency = m16_residency(device.multiprocessors);
  for (std::size_t i = 0; i < residency.size(); ++i) {
    const int blocks = kM16TeamSizes[i];
    const Choice choice = choose(true, 576, blocks);
    if (blocks == 1 || allow_resources(choice) != cudaSuccess) continue;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks * residency[i]));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = static_cast<std::size_t>(choice.shared_bytes);
    config.attrs = &cluster;
    config.numAttrs = 1;
    int clusters = 0;
    if (cudaOccupancyMaxActiveClusters(&clusters, choice.kernel, &config) == cudaSuccess) {
      residency[i] = clusters;
    }
  }
  cudaGetLastError();
  return residency;
}

class DecodeM16 final : public DeviceKernel {
 public:
  std::string_view name() const override { return "sm90-m16"; }

  std::string why_unsupported(const DecodeArgs& args) const override {
    if (args.exact) return "it merges in no canonical order (fast plans only)";
    const bool known =
        (args.d_qk == 576 && args.d_v == 512) || (args.d_qk == 320 && args.d_v == 256);
    if (!known) {
      return "d_qk/d_v " + std::to_string(args.d_qk) + "/" + std::to_string(args.d_v) +
             " is neither 576/512 nor 320/256";
    }
    for (const std::int64_t stride :
         {args.q_token_stride, args.q_head_stride, args.page_stride, args.token_stride,
          args.h_kv > 1 ? args.kv_head_stride : 0, args.out_token_stride, args.out_head_stride}) {
      if (!is_multiple_of_8(stride)) {
        return "a stride of " + std::to_string(stride) + " elements is no multiple of 8";
      }
    }
    for (const void* pointer : {static_cast<const void*>(args.q), static_cast<const void*>(args.kv),
                                static_cast<const void*>(args.out)}) {
      if (!is_aligned(pointer)) return "q, kv or out is not aligned to 16 bytes";
    }
    return "";
  }

  KernelGeometry geometry(std::span<const DeviceItem> items, const PlanSizes& sizes,
                          const DeviceInfo& device) const override {
    static const M16Residency residency = residency_of(device);
    return m16_geometry(items, sizes.d_v, residency);
  }

  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override {
    CUtensorMap map;
    if (const ErrorCode error = describe_cache(args, map); error != cudaSuccess) return error;
    const Choice choice = choose(args.bf16, args.d_qk, geometry.blocks_per_team);
    if (choice.kernel == nullptr) return cudaErrorInvalidValue;
    if (const cudaError_t error = allow_resources(choice); error != cudaSuccess) return error;

    const int tokens = box_tokens(args);
    const LaunchParams params{tokens,
                              std::countr_zero(static_cast<unsigned>(kTileTokens / tokens))};
    cudaLaunchAttribute attributes[3]{};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeCooperative;
    attributes[1].val.cooperative = 1;
    attributes[2].id = cudaLaunchAttributeClusterDimension;
    attributes[2].val.clusterDim = {static_cast<unsigned>(geometry.blocks_per_team), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(geometry.teams * geometry.blocks_per_team));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = static_cast<std::size_t>(choice.shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = geometry.blocks_per_team > 1 ? 3 : 2;
    return cudaLaunchKernelEx(&config, choice.kernel, map, args, params);
  }
};

}  // namespace

const DeviceKernel& decode_m16() {
  static const DecodeM16 kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda::sm90
