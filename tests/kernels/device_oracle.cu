#include <cmath>

#include "core/dtype.h"
#include "core/range.h"
#include "tests/kernels/device_oracle.h"

namespace mla::test {
namespace {

using namespace kernels::cuda;

constexpr int kTile = 64;   // rows, and tokens or values, of a block
constexpr int kDepth = 16;  // of the products' sums in shared memory at a time
constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;
constexpr int kEach = kTile / kSide;  // rows and columns of a thread: its own and every 16th after

/// The row in which a thread's `i`-th sum lies, and the column of its `j`-th.
__device__ int own_row(int i) {
  return static_cast<int>(threadIdx.x) / kSide + kSide * i;
}
__device__ int own_column(int j) {
  return static_cast<int>(threadIdx.x) % kSide + kSide * j;
}

/// sums[i][j] <- the sum of left(own_row(i), k) * right(own_column(j), k) over k < depth, by all
/// threads of a block.
template <class Left, class Right>
__device__ void multiply(int depth, Left left, Right right, double (&sums)[kEach][kEach]) {
  __shared__ double lefts[kDepth][kTile + 1];
  __shared__ double rights[kDepth][kTile + 1];
  for (int begin = 0; begin < depth; begin += kDepth) {
    for (int i = static_cast<int>(threadIdx.x); i < kDepth * kTile; i += kThreads) {
      const int k = i % kDepth;
      const bool inside = begin + k < depth;
      lefts[k][i / kDepth] = inside ? left(i / kDepth, begin + k) : 0;
      rights[k][i / kDepth] = inside ? right(i / kDepth, begin + k) : 0;
    }
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
      for (int i = 0; i < kEach; ++i) {
        const double factor = lefts[k][own_row(i)];
        for (int j = 0; j < kEach; ++j) sums[i][j] += factor * rights[k][own_column(j)];
      }
    }
    __syncthreads();
  }
}

__device__ double widen(const DecodeArgs& args, std::uint16_t bits) {
  return static_cast<double>(args.bf16 ? to_float(Bf16{bits}) : to_float(Fp16{bits}));
}

__device__ int rows_of(const DeviceItem& item) {
  return static_cast<int>(item.query_len * item.heads);
}

__device__ int tokens_of(const DeviceItem& item) {
  return static_cast<int>(item.context_len);
}

/// Where row `row` of an item lies, from `begin` on.
__device__ std::int64_t place(const DeviceItem& item, int row, std::int64_t begin,
                              std::int64_t token_stride, std::int64_t head_stride) {
  const int heads = static_cast<int>(item.heads);
  return begin + row / heads * token_stride + row % heads * head_stride;
}

__device__ const std::uint16_t* q_row(const DecodeArgs& args, const DeviceItem& item, int row) {
  return args.q + place(item, row, item.q, args.q_token_stride, args.q_head_stride);
}

__device__ const std::uint16_t* kv_row(const DecodeArgs& args, const DeviceItem& item, int token) {
  const int page_tokens = static_cast<int>(args.page_block_size);
  const std::int64_t page = args.block_tables[item.block_table + token / page_tokens];
  return args.kv + page * args.page_stride + token % page_tokens * args.token_stride +
         item.kv_head * args.kv_head_stride;
}

/// The keys that a row sees are those before this one.
__device__ int visible_end(const DecodeArgs& args, const DeviceItem& item, int row) {
  if (!args.causal) return tokens_of(item);
  const auto query = row / static_cast<int>(item.heads);
  return max(0, tokens_of(item) - (static_cast<int>(item.query_len) - 1 - query));
}

/// A block: 64 rows by 64 tokens of an item.
__global__ void __launch_bounds__(kThreads)
    compute_scores(DecodeArgs args, const OracleItem* items, double* scores) {
  const DeviceItem item = items[blockIdx.z].item;
  const int first_row = static_cast<int>(blockIdx.y) * kTile;
  const int first_token = static_cast<int>(blockIdx.x) * kTile;
  const int rows = rows_of(item);
  const int tokens = tokens_of(item);
  if (first_row >= rows || first_token >= tokens) return;
  const auto query = [&](int i, int d) {
    return first_row + i < rows ? widen(args, q_row(args, item, first_row + i)[d]) : 0;
  };
  const auto key = [&](int i, int d) {
    return first_token + i < tokens ? widen(args, kv_row(args, item, first_token + i)[d]) : 0;
  };
  double sums[kEach][kEach] = {};
  multiply(args.d_qk, query, key, sums);
  const double scale = static_cast<double>(args.scale_log2) * log(2.0);
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) {
      const int row = first_row + own_row(i);
      const int token = first_token + own_column(j);
      if (row < rows && token < tokens) {
        scores[items[blockIdx.z].scores + row * item.context_len + token] = scale * sums[i][j];
      }
    }
  }
}

/// `combine` of all threads' values, for all of them.
template <class Combine>
__device__ double reduce(double value, Combine combine) {
  __shared__ double values[kThreads];
  values[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      values[threadIdx.x] = combine(values[threadIdx.x], values[threadIdx.x + half]);
    }
    __syncthreads();
  }
  const double result = values[0];
  __syncthreads();
  return result;
}

/// A block: one row, whose scores become weights, zeros where it sees no key.
__global__ void __launch_bounds__(kThreads)
    take_softmax(DecodeArgs args, const OracleItem* items, double* scores, double* lse) {
  const DeviceItem item = items[blockIdx.y].item;
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  if (row >= rows_of(item)) return;
  double* const of_row = scores + items[blockIdx.y].scores + row * item.context_len;
  const int seen = visible_end(args, item, row);

  double most = -INFINITY;
  for (int t = thread; t < seen; t += kThreads) most = fmax(most, of_row[t]);
  most = reduce(most, [](double a, double b) { return fmax(a, b); });
  double sum = 0;
  for (int t = thread; t < seen; t += kThreads) sum += exp(of_row[t] - most);
  sum = reduce(sum, [](double a, double b) { return a + b; });
  for (int t = thread; t < tokens_of(item); t += kThreads) {
    of_row[t] = t < seen ? exp(of_row[t] - most) / sum : 0;
  }
  if (thread == 0) {
    lse[place(item, row, item.lse, args.lse_token_stride, args.lse_head_stride)] =
        seen > 0 ? most + log(sum) : INFINITY;
  }
}

/// A block: 64 rows by 64 values of an item.
__global__ void __launch_bounds__(kThreads)
    sum_values(DecodeArgs args, const OracleItem* items, const double* weights, double* out) {
  const DeviceItem item = items[blockIdx.z].item;
  const int first_row = static_cast<int>(blockIdx.y) * kTile;
  const int first_value = static_cast<int>(blockIdx.x) * kTile;
  const int rows = rows_of(item);
  if (first_row >= rows) return;
  const auto weight = [&](int i, int token) {
    return first_row + i < rows
               ? weights[items[blockIdx.z].scores + (first_row + i) * item.context_len + token]
               : 0;
  };
  const auto value = [&](int i, int token) {
    return first_value + i < args.d_v ? widen(args, kv_row(args, item, token)[first_value + i]) : 0;
  };
  double sums[kEach][kEach] = {};
  multiply(tokens_of(item), weight, value, sums);
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) {
      const int row = first_row + own_row(i);
      const int d = first_value + own_column(j);
      if (row < rows && d < args.d_v) {
        out[place(item, row, item.out, args.out_token_stride, args.out_head_stride) + d] =
            sums[i][j];
      }
    }
  }
}

unsigned tiles(std::int64_t n) {
  return static_cast<unsigned>(ceil_div(n, kTile));
}

}  // namespace

ErrorCode launch_oracle(const DecodeArgs& args, const OracleItem* items, const OracleSizes& sizes,
                        const OracleResults& results, StreamHandle stream) {
  const auto count = static_cast<unsigned>(sizes.items);
  const auto rows = static_cast<unsigned>(sizes.most_rows);
  if (sizes.most_tokens > 0) {
    const dim3 blocks(tiles(sizes.most_tokens), tiles(sizes.most_rows), count);
    compute_scores<<<blocks, kThreads, 0, stream>>>(args, items, results.scores);
  }
  take_softmax<<<dim3(rows, count), kThreads, 0, stream>>>(args, items, results.scores,
                                                           results.lse);
  const dim3 blocks(tiles(args.d_v), tiles(sizes.most_rows), count);
  sum_values<<<blocks, kThreads, 0, stream>>>(args, items, results.scores, results.out);
  return cudaGetLastError();
}

}  // namespace mla::test
