#pragma once

#include "kernels/cuda/results.cuh"
#include "kernels/cuda/simt/gpu.h"
#include "kernels/cuda/simt/tile.h"

namespace mla::kernels::cuda::simt {

/// What a thread needs of the operator besides `DecodeArgs`.
struct SimtArgs {
  DecodeArgs decode;
  /// Bytes that all strides of the cache are multiples of, so that 32 bits tell a row's place.
  std::uint32_t row_unit = 16;
  std::uint32_t q_unit =
      16;  ///< bytes, likewise; a variable, so that addresses take one instruction
};

/// A block's shared memory.
struct Shared {
  float* scores;            ///< [kStepTokens, score_stride]; then weights
  std::uint32_t* places;    ///< [2, kStepTokens] cache rows of this and the next step, in row_units
  std::uint32_t* q_places;  ///< [rows] in q_units behind the part's first query
  float* shrink;            ///< [rows] what earlier sums are multiplied by
  float* m;                 ///< [rows] once the part is done
  float* l;

  __device__ Shared(float* memory, int rows, int score_stride)
      : scores(memory),
        places(reinterpret_cast<std::uint32_t*>(scores + kStepTokens * score_stride)),
        q_places(places + 2 * kStepTokens),
        shrink(reinterpret_cast<float*>(q_places + rows)),
        m(shrink + rows),
        l(m + rows) {}
};

/// A thread's place in the block that computes a part.
struct PartThread {
  const SimtArgs& args;
  const Part& part;
  int rows;    ///< of the block
  int stride;  ///< between the scores of two keys
  Shared shared;
  int group_row;  ///< the first row of this thread's group
  int lane;       ///< in the group

  __device__ PartThread(const SimtArgs& a, const Part& p, float* memory, int thread_rows)
      : args(a),
        part(p),
        rows(thread_rows * static_cast<int>(blockDim.x) / kGroupThreads),
        stride(rows + 4),
        shared(memory, rows, stride),
        group_row(static_cast<int>(threadIdx.x) / kGroupThreads * thread_rows),
        lane(static_cast<int>(threadIdx.x) % kGroupThreads) {}

  /// Element `d` of the cache row at `place`.
  __device__ __forceinline__ const char* cache_at(std::uint32_t place, int d) const {
    return reinterpret_cast<const char*>(args.decode.kv + d) +
           static_cast<std::uint64_t>(place) * args.row_unit;
  }
};

}  // namespace mla::kernels::cuda::simt
