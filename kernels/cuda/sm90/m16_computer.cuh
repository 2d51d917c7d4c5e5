#pragma once

#include "kernels/cuda/sm90/m16_block.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// The warps that compute.
template <bool kBf16, int kDQk, int kDV, int kBlocks>
class Computer {
  using L = Layout<kDQk, kDV>;
  using Place = RingPlace<L::kSlots>;
  // Named barriers: 1 and 2 are those inside the groups.
  static constexpr int kAll = 3;   // of all computing warps
  static constexpr int kTurn = 4;  // and 5: of the group whose turn comes

 public:
  __device__ __forceinline__ Computer(const DecodeArgs& args, std::uint32_t shared, int block)
      : args_(args), shared_(shared), block_(block) {
    thread_ = static_cast<int>(threadIdx.x);
    group_ = uniform(thread_ / kGroupThreads);
    warp_ = uniform(thread_ % kGroupThreads / 32);
    lane_ = thread_ % 32;
    part_ = pointer<const Part>(L::kPart);
  }

  /// All parts; q, kv and results of earlier kernels must be complete.
  __device__ __forceinline__ void run() {
    while (true) {
      if (uniform(part_->rows) > 0) compute_part();
      const int next = uniform(part_->next);
      if (next < 0) break;
      sync_threads(kAll, kComputeThreads);
      copy_record(args_.parts + next, shared_ + L::kPart, thread_);
      sync_threads(kAll, kComputeThreads);
    }
  }

 private:
  /// Lane's rows: row_of(0..3), as the columns of its accumulators.
  __device__ __forceinline__ int row_of(int i) const {
    return 2 * (lane_ % 4) + (i & 1) + (i >> 1) * 8;
  }
  __device__ __forceinline__ int visible_end(int row) const {
    if (!args_.causal) return part_->token_end;
    const int query = (part_->row_begin + min(row, part_->rows - 1)) / part_->heads;
    return min(part_->token_end, part_->context_len - (part_->query_len - 1 - query));
  }

  __device__ __forceinline__ void compute_part() {
    store_q();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      m_[i] = -INFINITY;
      l_[i] = 0;
      visible_[i] = visible_end(row_of(i));
    }
    all_see_ = visible_end(0);
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) o_[i][j] = 0;
    }
    const int steps = uniform(steps_of<kBlocks>(*part_));
    const int first = uniform(part_->token_begin) + block_ * kTileTokens;
    token_end_ = uniform(part_->token_end);
    const Place part_place = place_;
    if (group_ == 1) place_.advance(L::kTileSlots);
    for (int step = group_; step < steps; step += kGroups) {
      const std::int64_t begin = first + static_cast<std::int64_t>(step) * (kBlocks * kTileTokens);
      if (step > 0) await_turn();
      const bool more = step + 1 < steps;
      if (begin < token_end_) {
        compute_tile(static_cast<int>(begin), more);
      } else {
        skip_tile(more);
      }
      place_.advance(kGroups * L::kTileSlots);
    }
    place_ = part_place;
    place_.advance_far(steps * L::kTileSlots);
    finish_part();
    place_.advance(L::kTileSlots);
  }

  __device__ __forceinline__ void store_q() const {
    constexpr int kChunks = kDQk / 8;
    constexpr int kRowThreads = kComputeThreads / kRows;
    constexpr int kEach = (kChunks + kRowThreads - 1) / kRowThreads;
    const int row = thread_ / kRowThreads;
    const int lane = thread_ % kRowThreads;
    uint4 chunks[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) chunks[i] = make_uint4(0, 0, 0, 0);
    const int item_row = part_->row_begin + row;
    const int token = item_row / part_->heads;
    const int head = item_row - token * part_->heads;
    if (row < part_->rows) {
      const auto* q = reinterpret_cast<const uint4*>(
          args_.q + part_->q + token * args_.q_token_stride + head * args_.q_head_stride);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (lane + i * kRowThreads < kChunks) chunks[i] = __ldg(q + lane + i * kRowThreads);
      }
      if (lane == 0) pointer<RowPlace>(L::kRowPlaces)[row] = place_of(row, token, head);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int chunk = lane + i * kRowThreads;
      if (chunk < kChunks) {
        store_shared(shared_ + L::kQ + chunk / 8 * (kRows * 128) + row * 128 +
                         ((chunk % 8) ^ (row % 8)) * 16,
                     chunks[i]);
      }
    }
    fence_async_proxy();
    sync_threads(kAll, kComputeThreads);
  }

  __device__ __forceinline__ RowPlace place_of(int row, int token, int head) const {
    if (part_->partial.offset >= 0) {
      float* partial = args_.partials + part_->partial.offset;
      const std::int64_t at = part_->partial.row_begin + row;
      const int padded_rows = (part_->partial.rows + 15) / 16 * 16;
      return {reinterpret_cast<char*>(partial + 2 * padded_rows + at * kDV), partial + at};
    }
    const std::int64_t at =
        part_->out + token * args_.out_token_stride + head * args_.out_head_stride;
    const int size = args_.out_type == OutType::kFp32 ? 4 : 2;
    return {static_cast<char*>(args_.out) + at * size,
            args_.lse + part_->lse + token * args_.lse_token_stride + head * args_.lse_head_stride};
  }

  /// Scores, weights and values of the tile that begins at token `begin`.
  __device__ __forceinline__ void compute_tile(int begin, bool more) {
    float s[8];
#pragma unroll
    for (int i = 0; i < L::kColumns; ++i) {
      if (i % L::kSlotColumns == 0) {
        wait_full(place_.plus(i / L::kSlotColumns));
        if (i / L::kSlotColumns == L::kTileSlots - 1 && more) pass_turn();
        begin_products();
      }
      const std::uint64_t k = describe_rows(column(i));
      const std::uint64_t q = describe_rows(shared_ + L::kQ + i * (kRows * 128));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        wgmma_64x16x16<kBf16, false>(s, moved(k, j * 32), moved(q, j * 32), i + j > 0);
      }
    }
    commit_products();
    wait_for_products<0>();
    forget();

    const int token = begin + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] *= args_.scale_log2;
    if (begin + kTileTokens > all_see_) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (token + ((i >> 1) & 1) * 8 >= visible_[row_index(i)]) s[i] = -INFINITY;
      }
    }
    float new_m[4];
    tile_maxima(s, new_m);
    if (begin + kTileTokens > token_end_) clear_values(token_end_ - begin);
    rescale(new_m);

    float base[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) base[i] = base_of(m_[i]);
    std::uint32_t p[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (i >> 1) * 2;
      const float weight = exp2_fast(s[2 * i] - base[row]);
      const float next_weight = exp2_fast(s[2 * i + 1] - base[row + 1]);
      p[i] = pack<kBf16>(weight, next_weight);
      l_[row] += weight;
      l_[row + 1] += next_weight;
    }
    const std::uint32_t weights = shared_ + L::kP + group_ * (kRows * 128);
    const int p_row = lane_ % 8 + (lane_ / 16) * 8;
    const int p_chunk = warp_ * 2 + (lane_ / 8) % 2;
    store_matrices_transposed(weights + p_row * 128 + ((p_chunk ^ (p_row % 8)) * 16), p[0], p[1],
                              p[2], p[3]);
    fence_async_proxy();
    group_barrier();
    begin_products();
    const std::uint64_t p_matrix = describe_rows(weights);
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
      const std::uint64_t v = describe_rows(column(i));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        wgmma_64x16x16<kBf16, true>(o_[i], moved(v, j * 2048), moved(p_matrix, j * 32), true);
      }
      if (i % L::kSlotColumns == L::kSlotColumns - 1) commit_products();
    }
    commit_products();
    release_as_done<L::kTileSlots>();
  }

  /// Releases the tile's slots one by one, as the products that read them finish.
  template <int kLeft>
  __device__ __forceinline__ void release_as_done() const {
    if constexpr (kLeft > 0) {
      wait_for_products<kLeft - 1>();
      release(place_.plus(L::kTileSlots - kLeft));
      release_as_done<kLeft - 1>();
    }
  }

  /// Which of the lane's four rows accumulator element `i` of a product belongs to.
  static __device__ __forceinline__ constexpr int row_index(int i) {
    return (i & 1) | ((i >> 2) << 1);
  }

  /// Reduces four values, one for each of the lane's rows, over the eight lanes that have the same
  /// rows. Returns that of row `reduced_row()`: each step halves what is exchanged.
  template <class Reduce>
  __device__ __forceinline__ float over_lanes(const float (&x)[4], Reduce reduce) const {
    const bool upper = (lane_ & 16) != 0;
    const float a = exchange(upper ? x[0] : x[2], 16, upper ? x[2] : x[0], reduce);
    const float b = exchange(upper ? x[1] : x[3], 16, upper ? x[3] : x[1], reduce);
    const bool odd = (lane_ & 8) != 0;
    const float c = exchange(odd ? a : b, 8, odd ? b : a, reduce);
    return exchange(c, 4, c, reduce);
  }
  template <class Reduce>
  __device__ __forceinline__ float exchange(float give, int distance, float keep,
                                            Reduce reduce) const {
    return reduce(keep, __shfl_xor_sync(0xFFFFFFFFu, give, distance));
  }
  __device__ __forceinline__ int reduced_row() const {
    return row_of((lane_ >> 4) * 2 + (lane_ >> 3 & 1));
  }

  /// The largest of m_ and the group's scores.
  __device__ __forceinline__ void tile_maxima(const float (&s)[8], float (&new_m)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = (i & 1) | ((i >> 1) << 2);
      new_m[i] = fmaxf(s[first], s[first + 2]);
    }
    const float largest = over_lanes(new_m, [](float a, float b) { return fmaxf(a, b); });
    const std::uint32_t maxima = shared_ + L::kMaxima + group_ * (kGroupWarps * kRows * 4);
    if ((lane_ & 4) == 0) store_shared(maxima + reduced_row() * 16 + warp_ * 4, largest);
    group_barrier();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 of_warps = load_shared4(maxima + row_of(i) * 16);
      new_m[i] = fmaxf(fmaxf(fmaxf(of_warps.x, of_warps.y), fmaxf(of_warps.z, of_warps.w)), m_[i]);
    }
  }

  __device__ __forceinline__ void rescale(const float (&new_m)[4]) {
    const bool changed =
        new_m[0] > m_[0] || new_m[1] > m_[1] || new_m[2] > m_[2] || new_m[3] > m_[3];
    if (!__any_sync(0xFFFFFFFFu, changed)) return;
    float factor[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      factor[i] = m_[i] == -INFINITY ? 0 : exp2_fast(m_[i] - new_m[i]);
      m_[i] = new_m[i];
      l_[i] *= factor[i];
    }
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) o_[i][j] *= factor[row_index(j)];
    }
  }

  /// Values of tokens past the end may be anything, and 0 * NaN is NaN. All warps of the group are
  /// done with the tile's scores.
  __device__ __forceinline__ void clear_values(int tokens) const {
    for (int n = tokens * 8 + thread_ % kGroupThreads; n < kTileTokens * 8; n += kGroupThreads) {
#pragma unroll
      for (int i = 0; i < L::kValueColumns; ++i) {
        store_shared(column(i) + n * 16, make_uint4(0, 0, 0, 0));
      }
    }
  }

  __device__ __forceinline__ void skip_tile(bool more) const {
    for (int i = 0; i < L::kTileSlots; ++i) wait_full(place_.plus(i));
    if (more) pass_turn();
    for (int i = 0; i < L::kTileSlots; ++i) release(place_.plus(i));
  }

  // The groups take their tiles in turn: none waits for a tile before the other has seen the one
  // before it arrive. A group that ran ahead could look at a slot whose last round is not even
  // full, and take the parity of the round before that for its own.

  __device__ __forceinline__ void await_turn() const {
    sync_threads(kTurn + group_, kComputeThreads);
  }
  __device__ __forceinline__ void pass_turn() const {
    arrive_threads(kTurn + 1 - group_, kComputeThreads);
  }

  // The end of a part. The next slots of the ring are the block's: the first half takes the block's
  // partial, for the cluster to read; the second what the groups hand each other.

  /// Column `column` of the block's partial: 64 elements of 16 rows, float [row][element], where
  /// `swizzled` elements keep both the writers and the readers off each other's banks.
  __device__ __forceinline__ std::uint32_t partial_column(int column) const {
    return this->column(column / 2) + column % 2 * (L::kColumnBytes / 2);
  }
  static __device__ __forceinline__ int swizzled(int row, int element) {
    return row * 64 + (element ^ (row / 2 % 4 * 8));
  }

  __device__ __forceinline__ void finish_part() {
    // What follows is not to be computed ahead: it would take the products' registers.
    forget();
    hand_over();
    sync_threads(kAll, kComputeThreads);
    add_groups();
    if constexpr (kBlocks > 1) {
      signal_cluster(L::kPartialsReady);
      barrier_wait_cluster(shared_ + L::kPartialsReady, cluster_parity_);
    } else {
      sync_threads(kAll, kComputeThreads);
    }
    merge_blocks();
    fence_async_proxy();
    if constexpr (kBlocks > 1) {
      barrier_wait_cluster(shared_ + L::kPartialsRead, cluster_parity_);
      cluster_parity_ ^= 1;
    }
    if (group_ == 0) {
      for (int i = 0; i < L::kTileSlots; ++i) release(place_.plus(i));
    }
  }

  __device__ __forceinline__ void forget() {
    asm volatile("" : "+r"(thread_), "+r"(lane_), "+r"(block_));
  }

  static constexpr int kHalf = L::kValueColumns / 2;

  /// Where group `from` hands the other column `i` of the half that it does not keep.
  __device__ __forceinline__ std::uint32_t handed(int from, int i) const {
    return column(kHalf + from * (kHalf / 2) + i / 2) + i % 2 * (L::kColumnBytes / 2) +
           thread_ % kGroupThreads * 16;
  }

  /// Shows the other group this one's m and sums, and gives it the half of o that it will keep.
  __device__ __forceinline__ void hand_over() {
    const float sum = over_lanes(l_, [](float a, float b) { return a + b; });
    if ((lane_ & 4) == 0) {
      store_shared(
          shared_ + L::kSums + ((group_ * kRows + reduced_row()) * kGroupWarps + warp_) * 4, sum);
    }
    if (warp_ == 0 && lane_ < 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store_shared(shared_ + L::kGroupM + (group_ * kRows + row_of(i)) * 4, m_[i]);
      }
    }
    for (int i = 0; i < L::kTileSlots; ++i) wait_full(place_.plus(i));
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      float give[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) give[j] = group_ == 0 ? o_[kHalf + i][j] : o_[i][j];
      store_shared4(handed(group_, i), give[0], give[1], give[2], give[3]);
      store_shared4(handed(group_, i) + kGroupThreads * 16, give[4], give[5], give[6], give[7]);
    }
  }

  /// Adds what the other group handed over to this one's half and leaves it as the block's partial,
  /// with the block's m and l.
  __device__ __forceinline__ void add_groups() {
    const float* group_m = pointer<const float>(L::kGroupM);
    float mine[4];
    float other[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other_m = group_m[(1 - group_) * kRows + row_of(i)];
      const float m = base_of(fmaxf(m_[i], other_m));
      mine[i] = exp2_fast(m_[i] - m);
      other[i] = exp2_fast(other_m - m);
    }
    if (thread_ < kRows) pointer<float2>(L::kStats)[thread_] = block_stats(thread_);

    const int element = warp_ * 16 + lane_ / 4;
    const int swizzle = lane_ % 4 * 8;
    const std::uint32_t low = (2 * (lane_ % 4) * 64 + (element ^ swizzle)) * 4;
    const std::uint32_t high = (2 * (lane_ % 4) * 64 + ((element + 8) ^ swizzle)) * 4;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float4 a = load_shared4(handed(1 - group_, i));
      const float4 b = load_shared4(handed(1 - group_, i) + kGroupThreads * 16);
      const float received[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
      const std::uint32_t to = partial_column(group_ * kHalf + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float keep = group_ == 0 ? o_[i][j] : o_[kHalf + i][j];
        const int r = row_index(j);
        const std::uint32_t row_offset = ((r & 1) * 64 + (r >> 1) * 8 * 64) * 4;
        store_shared(to + ((j >> 1 & 1) == 0 ? low : high) + row_offset,
                     keep * mine[r] + received[j] * other[r]);
      }
    }
  }

  __device__ __forceinline__ float2 block_stats(int row) const {
    const float* group_m = pointer<const float>(L::kGroupM);
    const float m = fmaxf(group_m[row], group_m[kRows + row]);
    float l = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float4 sums = load_shared4(shared_ + L::kSums + (g * kRows + row) * 16);
      const float of_group = group_m[g * kRows + row];
      const float sum = (sums.x + sums.y) + (sums.z + sums.w);
      l += sum * exp2_fast(of_group - base_of(m));
    }
    return make_float2(m, l);
  }

  /// Tells all blocks of the cluster that this warp has come so far.
  __device__ __forceinline__ void signal_cluster(int barrier) const {
    __syncwarp();
    if (lane_ < kBlocks) {
      barrier_arrive_cluster(map_to_block(shared_ + barrier, static_cast<std::uint32_t>(lane_)));
    }
  }

  /// Merges this block's share of the columns over the blocks of the cluster, and writes it.
  __device__ __forceinline__ void merge_blocks() {
    constexpr int kElements = kDV / kBlocks;
    constexpr int kVectors = kElements / 4;
    constexpr int kPlaces = kRows * kVectors;
    constexpr int kSplit = kPlaces < kComputeThreads ? kComputeThreads / kPlaces : 1;
    constexpr int kEach = kPlaces > kComputeThreads ? kPlaces / kComputeThreads : 1;
    constexpr int kPartials = kBlocks / kSplit;
    const int split = thread_ % kSplit;
    const int rows = part_->rows;
    const int merge = part_->merge;
    const bool leaves_partial = part_->partial.offset >= 0;
#pragma unroll 2
    for (int e = 0; e < kEach; ++e) {
      const int place = (e * kComputeThreads + thread_) / kSplit;
      const int row = place / kVectors;
      const int element = block_ * kElements + place % kVectors * 4;
      const std::uint32_t at = partial_column(element / 64) + swizzled(row, element % 64) * 4;
      const std::uint32_t stats_at = shared_ + L::kStats + row * 8;
      float4 o[kPartials];
      float2 stats[kPartials];
#pragma unroll
      for (int i = 0; i < kPartials; ++i) {
        if constexpr (kBlocks == 1) {
          o[i] = load_shared4(at);
          stats[i] = *pointer<const float2>(L::kStats + row * 8);
        } else {
          const auto from = static_cast<std::uint32_t>((split * kPartials + i + block_) % kBlocks);
          o[i] = load_mapped4(map_to_block(at, from));
          stats[i] = load_mapped2(map_to_block(stats_at, from));
        }
      }
      float m = stats[0].x;
#pragma unroll
      for (int i = 1; i < kPartials; ++i) m = fmaxf(m, stats[i].x);
#pragma unroll
      for (int distance = 1; distance < kSplit; distance *= 2) {
        m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, distance));
      }
      float l = 0;
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kPartials; ++i) {
        const float weight = exp2_fast(stats[i].x - base_of(m));
        l += weight * stats[i].y;
        sum.x += weight * o[i].x;
        sum.y += weight * o[i].y;
        sum.z += weight * o[i].z;
        sum.w += weight * o[i].w;
      }
      if constexpr (kBlocks > 1) {
        // The sums are used, so what they are made of has come.
        asm volatile("" ::"f"(l), "f"(sum.x), "f"(sum.y), "f"(sum.z), "f"(sum.w) : "memory");
        if (e == kEach - 1) signal_cluster(L::kPartialsRead);
      }
#pragma unroll
      for (int distance = 1; distance < kSplit; distance *= 2) {
        l += __shfl_xor_sync(0xFFFFFFFFu, l, distance);
        sum.x += __shfl_xor_sync(0xFFFFFFFFu, sum.x, distance);
        sum.y += __shfl_xor_sync(0xFFFFFFFFu, sum.y, distance);
        sum.z += __shfl_xor_sync(0xFFFFFFFFu, sum.z, distance);
        sum.w += __shfl_xor_sync(0xFFFFFFFFu, sum.w, distance);
      }
      if (split == 0 && row < rows) write(leaves_partial, row, element, m, l, sum);
    }
    if (merge >= 0) {
      fence_gpu();
      sync_threads(kAll, kComputeThreads);
      if (thread_ == 0) atomicAdd(args_.counters + 2 * merge, 1u);
    } else if constexpr (kBlocks == 1) {
      sync_threads(kAll, kComputeThreads);
    }
  }

  __device__ __forceinline__ void write(bool partial, int row, int element, float m, float l,
                                        float4 o) const {
    const RowPlace place = pointer<const RowPlace>(L::kRowPlaces)[row];
    if (partial) {
      __stcg(reinterpret_cast<float4*>(place.out) + element / 4, o);
      if (element == 0) {
        __stcg(place.lse, m);
        __stcg(place.lse + (part_->partial.rows + 15) / 16 * 16, l);
      }
      return;
    }
    write_result(args_.out_type, place, element, m, l, o);
  }

  template <class T>
  __device__ __forceinline__ T* pointer(int offset) const {
    extern __shared__ __align__(1024) char memory[];
    return reinterpret_cast<T*>(memory + offset);
  }
  __device__ __forceinline__ void group_barrier() const {
    sync_threads(1 + group_, kGroupThreads);
  }
  __device__ __forceinline__ std::uint32_t slot(Place place) const {
    return shared_ + place.slot * L::kSlotBytes;
  }
  /// Column `i` of the tile, or of the partial, at place_.
  __device__ __forceinline__ std::uint32_t column(int i) const {
    return slot(place_.plus(i / L::kSlotColumns)) + i % L::kSlotColumns * L::kColumnBytes;
  }
  __device__ __forceinline__ void wait_full(Place place) const {
    wait(shared_ + L::kFull + place.slot * 8, place.parity);
  }
  __device__ __forceinline__ void release(Place place) const {
    __syncwarp();
    if (lane_ == 0) arrive(shared_ + L::kEmpty + place.slot * 8);
  }

  const DecodeArgs& args_;
  std::uint32_t shared_;
  int block_;
  int thread_;
  int group_;
  int warp_;
  int lane_;
  const Part* part_;
  Place place_;
  std::uint32_t cluster_parity_ = 0;
  int visible_[4];
  int all_see_ = 0;
  int token_end_ = 0;
  float m_[4];
  float l_[4];
  float o_[L::kValueColumns][8];
};

}  // namespace mla::kernels::cuda::sm90::m16
