#include "tests/kernels/device_fill.h"

namespace mla::test {
namespace {

using kernels::cuda::ErrorCode;
using kernels::cuda::StreamHandle;

constexpr int kThreads = 256;
constexpr int kBlocks = 2048;

/// Calls f(i) for all i < n, each on one thread.
template <class F>
__device__ void for_each(std::int64_t n, F f) {
  const std::int64_t threads = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += threads) {
    f(i);
  }
}

__global__ void fill_cache(CacheToFill cache, RandomRows random) {
  const KvView& strides = cache.strides;
  for_each(cache.num_pages * strides.page_stride, [&](std::int64_t i) {
    const PageTokens page = cache.pages[i / strides.page_stride];
    const std::int64_t slot = i % strides.page_stride / strides.token_stride;
    const std::int64_t in_slot = i % strides.page_stride % strides.token_stride;
    const std::int64_t head = in_slot / strides.head_stride;
    const std::int64_t d = in_slot % strides.head_stride;
    const bool used = slot < page.tokens && head < cache.h_kv && d < cache.d_qk;
    cache.data[i] =
        used ? random.kv(page.request * cache.h_kv + head, page.first_token + slot)[d] : kNanBits;
  });
}

__global__ void fill_queries(QueriesToFill queries, RandomRows random) {
  for_each(queries.rows * queries.row_stride, [&](std::int64_t i) {
    const std::int64_t d = i % queries.row_stride;
    queries.data[i] = d < queries.d_qk ? random.q(i / queries.row_stride)[d] : kNanBits;
  });
}

}  // namespace

ErrorCode launch_fill(const CacheToFill& cache, const RandomRows& random, StreamHandle stream) {
  fill_cache<<<kBlocks, kThreads, 0, stream>>>(cache, random);
  return cudaGetLastError();
}

ErrorCode launch_fill(const QueriesToFill& queries, const RandomRows& random, StreamHandle stream) {
  fill_queries<<<kBlocks, kThreads, 0, stream>>>(queries, random);
  return cudaGetLastError();
}

}  // namespace mla::test
