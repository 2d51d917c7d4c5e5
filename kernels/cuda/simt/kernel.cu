#include <algorithm>
#include <numeric>

#include "kernels/cuda/merge.cuh"
#include "kernels/cuda/simt/decode.cuh"
#include "kernels/cuda/simt/kernel.h"
#include "kernels/cuda/simt/tile.h"

namespace mla::kernels::cuda {
namespace simt {
namespace {

/// Merging waits for memory more than it computes: many small blocks, of which a few share what one
/// team has to do.
constexpr int kMergeThreads = 128;
constexpr int kMergeBlocks = 4;
constexpr std::int64_t kSharedBytes = 16 * 1024;  // of any block, on any device
static_assert(kMergeSharedBytes <= kSharedBytes);

DeviceProfile profile_of(const DeviceInfo& device) {
  return {kSharedBytes, gpu::kRegistersPerThread, gpu::kRegistersPerMultiprocessor, gpu::kWarpLanes,
          device.multiprocessors};
}

/// Blocks (t, ...) do the merges that team t has a share of. All parts are done.
__global__ void __launch_bounds__(kMergeThreads, kMergeBlocks)
    merge_parts(const MLA_GRID_CONSTANT DecodeArgs args) {
  __shared__ float4 shared[kMergeSharedBytes / sizeof(float4)];
  const int end = args.share_offsets[blockIdx.x + 1];
  for (int i = args.share_offsets[blockIdx.x] + static_cast<int>(blockIdx.y); i < end;
       i += kMergeBlocks) {
    const MergeShare share = args.shares[i];
    const Merge merge = args.merges[share.merge];
    merge_slice(args, merge, share.first_block, static_cast<int>(threadIdx.x), kMergeThreads,
                shared);
  }
}

template <int kRows, int kDims>
void launch_parts(const SimtArgs& args, const Tile& tile, int teams, gpu::Stream stream) {
  const auto bytes = static_cast<std::size_t>(tile.shared_bytes());
  if (args.decode.bf16) {
    decode_parts<kRows, kDims, true><<<teams, tile.threads(), bytes, stream>>>(args);
  } else {
    decode_parts<kRows, kDims, false><<<teams, tile.threads(), bytes, stream>>>(args);
  }
}

gpu::Error run(const SimtArgs& args, const Tile& tile, int teams, gpu::Stream stream) {
  if (tile.thread_rows == 8) {
    tile.thread_dims == 8 ? launch_parts<8, 8>(args, tile, teams, stream)
                          : launch_parts<8, 4>(args, tile, teams, stream);
  } else {
    tile.thread_dims == 8 ? launch_parts<4, 8>(args, tile, teams, stream)
                          : launch_parts<4, 4>(args, tile, teams, stream);
  }
  merge_parts<<<dim3(teams, kMergeBlocks), kMergeThreads, 0, stream>>>(args.decode);
  return gpu::last_error();
}

/// Bytes that the strides of the cache are multiples of: as many as 32 bits hold.
std::uint32_t row_unit_of(const DecodeArgs& args) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  const std::int64_t unit =
      2 * std::gcd(std::gcd(args.page_stride, args.token_stride), args.kv_head_stride);
  if (unit == 0) return 2 * kDotElements;
  return static_cast<std::uint32_t>(unit <= kMost ? unit : std::gcd(unit, kMost));
}

bool is_multiple(std::int64_t of, std::initializer_list<std::int64_t> values) {
  return std::all_of(values.begin(), values.end(), [&](auto value) { return value % of == 0; });
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

/// Of an exact plan, about.
std::int64_t count_parts(std::span<const DeviceItem> items, const Tile& tile) {
  std::int64_t parts = 0;
  for (const DeviceItem& item : items) {
    parts += ceil_div(item.rows.size(), tile.rows()) * item.chunks.size();
  }
  return parts;
}

class SimtKernel final : public DeviceKernel {
 public:
  std::string_view name() const override { return "simt"; }

  std::string why_unsupported(const DecodeArgs& args) const override {
    if (!is_multiple(8, {args.d_qk, args.d_v})) return "d_qk and d_v must be multiples of 8";
    if (args.d_v > args.d_qk) return "d_v must not exceed d_qk";
    if (!is_aligned(args.q) || !is_aligned(args.kv) || !is_aligned(args.out) ||
        !is_multiple(8,
                     {args.q_token_stride, args.q_head_stride, args.page_stride, args.token_stride,
                      args.kv_head_stride, args.out_token_stride, args.out_head_stride})) {
      return "rows of q, kv and out must begin at multiples of 16 bytes";
    }
    constexpr std::int64_t kPlaces = 0xffffffff;
    if (2 * args.num_pages * args.page_stride / row_unit_of(args) >= kPlaces) {
      return "the cache has over 2^32 rows";
    }
    if (args.page_block_size > 0x7fffffff) return "pages have over 2^31 tokens";
    return {};
  }

  KernelGeometry geometry(std::span<const DeviceItem> items, const PlanSizes& sizes,
                          const DeviceInfo& device) const override {
    const DeviceProfile profile = profile_of(device);
    std::int64_t rows = 1;
    for (const DeviceItem& item : items) rows = std::max(rows, item.rows.size());
    Tile tile = choose_tile(profile, rows, sizes.d_v);
    const auto teams = [&] { return profile.multiprocessors * resident_blocks(profile, tile); };
    if (sizes.exact && count_parts(items, tile) < teams()) {
      tile = choose_tile(profile, 1, sizes.d_v);  // chunks cannot be cut, so cut the rows
    }
    return {teams(), 1, tile.rows(), kStepTokens};
  }

  ErrorCode launch(const DecodeArgs& args, const KernelGeometry& geometry,
                   StreamHandle stream) const override {
    const Tile tile = choose_tile(profile_of({}), geometry.rows_per_part, args.d_v);
    return static_cast<ErrorCode>(run({args, row_unit_of(args)}, tile, geometry.teams,
                                      reinterpret_cast<gpu::Stream>(stream)));
  }
};

}  // namespace
}  // namespace simt

const DeviceKernel& simt_kernel() {
  static const simt::SimtKernel kernel;
  return kernel;
}

}  // namespace mla::kernels::cuda
