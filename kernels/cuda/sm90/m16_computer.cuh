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
  __device__ __forceinline__ void compute_part() {
    store_q();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      m_[i] = -INFINITY;
      l_[i] = 0;
      visible_[i] = pointer<const int>(L::kVisible)[row_of(i)];
    }
    all_see_ = *pointer<const int>(L::kVisible);
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
        compute_tile(step, static_cast<int>(begin), more);
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
    const int item_row = part_->row_begin + min(row, part_->rows - 1);
    const int token = item_row / part_->heads;
    const int head = item_row - token * part_->heads;
    if (lane == 0) {
      const int hidden = args_.causal ? part_->query_len - 1 - token : 0;
      pointer<int>(L::kVisible)[row] = min(part_->token_end, part_->context_len - hidden);
    }
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
  __device__ __forceinline__ void compute_tile(int step, int begin, bool more) {
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
    if (step < kGroups) {
      take_first(new_m);
    } else {
      rescale(new_m);
    }

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

  /// The group's first tile: there are no sums yet.
  __device__ __forceinline__ void take_first(const float (&new_m)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) m_[i] = new_m[i];
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

  // The end of a part. The next tile's slots of the ring are the block's. The groups give each
  // other half of their columns and add; the sums go to the blocks that merge them, from registers.
  // Where a block gets them each warp's 16 elements of the 16 rows are a piece of 1 KB: four floats
  // of a lane (two rows by the elements e and e + 8) beside those of the next, the lower eight rows
  // first.

  static constexpr int kHalf = L::kValueColumns / 2;
  static constexpr int kElements = kDV / kBlocks;  ///< of a row that this block merges
  static constexpr int kPieceBytes = kRows * 16 * 4;
  static constexpr int kSliceBytes = kRows * kElements * 4;

  __device__ __forceinline__ void finish_part() {
    // What follows is not to be computed ahead: it would take the products' registers.
    forget();
    hand_over();
    sync_threads(kAll, kComputeThreads);
    if constexpr (kBlocks > 1) {
      barrier_wait_cluster(shared_ + L::kReady, cluster_parity_);
      send_stats();
      add_groups([&](int i, int half, float4 sums) {
        const int piece = (group_ * kHalf + i) * 4 + warp_;
        const auto block = static_cast<std::uint32_t>(piece / (kElements / 16));
        const int place = block_ * kSliceBytes + piece % (kElements / 16) * kPieceBytes +
                          half * (kPieceBytes / 2) + lane_ * 16;
        send(map_to_block(given(place), block), sums,
             map_to_block(shared_ + L::kSlicesReceived, block));
      });
      barrier_wait_cluster(shared_ + L::kStatsReceived, cluster_parity_);
      weigh_blocks();
      sync_threads(kAll, kComputeThreads);
      barrier_wait_cluster(shared_ + L::kSlicesReceived, cluster_parity_);
      cluster_parity_ ^= 1;
      add_blocks();
    } else {
      if (thread_ < kRows) {
        const float2 stats = block_stats(thread_);
        write_stats(thread_, stats.x, stats.y);
      }
      add_groups([&](int i, int half, float4 sums) {
        put_merged((group_ * kHalf + i) * 64 + warp_ * 16 + lane_ / 4, 2 * (lane_ % 4) + half * 8,
                   sums);
      });
    }
    sync_threads(kAll, kComputeThreads);
    write_merged();
    release_given();
  }

  __device__ __forceinline__ void forget() {
    asm volatile("" : "+r"(thread_), "+r"(lane_), "+r"(block_));
  }

  /// Byte `offset` of the given slots.
  __device__ __forceinline__ std::uint32_t given(int offset) const {
    const int at = place_.slot * L::kSlotBytes + offset;
    return shared_ + (at < L::kRingBytes ? at : at - L::kRingBytes);
  }
  /// Where group `from` hands the other column `i` of the half that it does not keep.
  __device__ __forceinline__ std::uint32_t handed(int from, int i) const {
    return given(L::kPartialBytes + ((from * kHalf + i) * 4 + warp_) * kPieceBytes + lane_ * 16);
  }
  /// A row's element after merging, of this block's. Swizzled so that neither writers nor readers
  /// meet in a bank.
  __device__ __forceinline__ std::uint32_t merged(int row, int element) const {
    constexpr int kFrom = kBlocks > 1 ? L::kPartialBytes : 0;
    return given(kFrom + element / 64 * (kRows * 64 * 4) +
                 (row * 64 + ((element % 64) ^ (row / 2 % 4 * 8))) * 4);
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
      const std::uint32_t to = handed(group_, i);
      store_shared4(to, give[0], give[1], give[2], give[3]);
      store_shared4(to + kPieceBytes / 2, give[4], give[5], give[6], give[7]);
    }
  }

  /// Adds what the other group handed over to this one's half. `take(i, half, sums)` gets four sums
  /// of column `i` of the half: rows r and r + 1 of element e, then of e + 8.
  template <class Take>
  __device__ __forceinline__ void add_groups(Take take) {
    const float* group_m = pointer<const float>(L::kGroupM);
    float mine[4];
    float other[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other_m = group_m[(1 - group_) * kRows + row_of(i)];
      const float m = base_of(fmaxf(m_[i], other_m));
      mine[i] = exp2_fast(m_[i] - m);
      other[i] = exp2_fast(other_m - m);
      if constexpr (kBlocks == 1) {
        const float scale = final_scale(block_stats(row_of(i)).y);
        mine[i] *= scale;
        other[i] *= scale;
      }
    }
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const std::uint32_t from = handed(1 - group_, i);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 received = load_shared4(from + half * (kPieceBytes / 2));
        float keep[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          keep[j] = group_ == 0 ? o_[i][half * 4 + j] : o_[kHalf + i][half * 4 + j];
        }
        const float mine0 = mine[half * 2];
        const float mine1 = mine[half * 2 + 1];
        const float other0 = other[half * 2];
        const float other1 = other[half * 2 + 1];
        take(i, half,
             make_float4(
                 keep[0] * mine0 + received.x * other0, keep[1] * mine1 + received.y * other1,
                 keep[2] * mine0 + received.z * other0, keep[3] * mine1 + received.w * other1));
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

  /// Sends the block's m and l of all rows to all blocks.
  __device__ __forceinline__ void send_stats() const {
    const int row = thread_ % kRows;
    const int block = thread_ / kRows;
    if (block >= kBlocks) return;
    send(map_to_block(shared_ + L::kStats + (block_ * kRows + row) * 8,
                      static_cast<std::uint32_t>(block)),
         block_stats(row),
         map_to_block(shared_ + L::kStatsReceived, static_cast<std::uint32_t>(block)));
  }

  /// What a finished row's sums are multiplied by; a partial's are not.
  __device__ __forceinline__ float final_scale(float l) const {
    return part_->partial.offset >= 0 ? 1 : inverse_of(l);
  }

  /// Makes the blocks' weights; the first block writes the rows' lse, or m and l.
  __device__ __forceinline__ void weigh_blocks() const {
    const int block = thread_ % kBlocks;
    const int row = thread_ / kBlocks;
    if (row >= kRows) return;
    const float2 stats = *pointer<const float2>(L::kStats + (block * kRows + row) * 8);
    float m = stats.x;
#pragma unroll
    for (int distance = 1; distance < kBlocks; distance *= 2) {
      m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, distance));
    }
    const float weight = exp2_fast(stats.x - base_of(m));
    float l = weight * stats.y;
#pragma unroll
    for (int distance = 1; distance < kBlocks; distance *= 2) {
      l += __shfl_xor_sync(0xFFFFFFFFu, l, distance);
    }
    store_shared(shared_ + L::kWeights + (block * kRows + row) * 4, weight * final_scale(l));
    if (block_ == 0 && block == 0) write_stats(row, m, l);
  }

  /// Adds the slices of all blocks.
  __device__ __forceinline__ void add_blocks() const {
    constexpr int kPlaces = kSliceBytes / 16;
    constexpr int kSplit = kPlaces < kComputeThreads ? kComputeThreads / kPlaces : 1;
    constexpr int kEach = kPlaces > kComputeThreads ? kPlaces / kComputeThreads : 1;
    constexpr int kLanes = 32 / kSplit;
    constexpr int kAdded = kBlocks / kSplit;
    const int first = lane_ / kLanes * kAdded;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int place = (e * (kComputeThreads / 32) + thread_ / 32) * kLanes + lane_ % kLanes;
      const int row = 2 * (place % 4) + place / 32 % 2 * 8;
      float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kAdded; ++i) {
        const float4 x = load_shared4(given((first + i) * kSliceBytes + place * 16));
        const float2 weight = *pointer<const float2>(L::kWeights + ((first + i) * kRows + row) * 4);
        sum.x += weight.x * x.x;
        sum.y += weight.y * x.y;
        sum.z += weight.x * x.z;
        sum.w += weight.y * x.w;
      }
#pragma unroll
      for (int distance = kLanes; distance < 32; distance *= 2) {
        sum.x += __shfl_xor_sync(0xFFFFFFFFu, sum.x, distance);
        sum.y += __shfl_xor_sync(0xFFFFFFFFu, sum.y, distance);
        sum.z += __shfl_xor_sync(0xFFFFFFFFu, sum.z, distance);
        sum.w += __shfl_xor_sync(0xFFFFFFFFu, sum.w, distance);
      }
      if (first == 0) put_merged(place / 64 * 16 + place % 32 / 4, row, sum);
    }
  }

  __device__ __forceinline__ void put_merged(int element, int row, float4 sums) const {
    store_shared(merged(row, element), sums.x);
    store_shared(merged(row + 1, element), sums.y);
    store_shared(merged(row, element + 8), sums.z);
    store_shared(merged(row + 1, element + 8), sums.w);
  }

  __device__ __forceinline__ void write_stats(int row, float m, float l) const {
    if (row >= part_->rows) return;
    float* to = pointer<const RowPlace>(L::kRowPlaces)[row].lse;
    if (part_->partial.offset >= 0) {
      __stcg(to, m);
      __stcg(to + (part_->partial.rows + 15) / 16 * 16, l);
    } else {
      *to = lse_of(m, l);
    }
  }

  /// Writes this block's elements of all rows.
  __device__ __forceinline__ void write_merged() const {
    constexpr int kVectors = kElements / 4;
    constexpr int kPlaces = kRows * kVectors;
    const int places = part_->rows * kVectors;
    const bool leaves_partial = part_->partial.offset >= 0;
#pragma unroll
    for (int from = 0; from < kPlaces; from += kComputeThreads) {
      const int place = from + thread_;
      if (place >= places) break;
      const int row = place / kVectors;
      const int element = place % kVectors * 4;
      const float4 o = load_shared4(merged(row, element));
      char* out = pointer<const RowPlace>(L::kRowPlaces)[row].out;
      if (leaves_partial) {
        __stcg(reinterpret_cast<float4*>(out) + (block_ * kElements + element) / 4, o);
      } else {
        write_elements(args_.out_type, out, block_ * kElements + element, o);
      }
    }
  }

  /// Ends the part: its partial is there, and the given slots are the loader's again.
  __device__ __forceinline__ void release_given() const {
    const int merge = part_->merge;
    if (merge >= 0) fence_gpu();
    fence_async_proxy();
    sync_threads(kAll, kComputeThreads);
    if (thread_ == 0) {
      if (merge >= 0) atomicAdd(args_.counters + 2 * merge, 1u);
      if constexpr (kBlocks > 1) arrive(shared_ + L::kMerged);
    }
    if (group_ == 0) {
      for (int i = 0; i < L::kTileSlots; ++i) release(place_.plus(i));
    }
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
  /// Column `i` of the tile at place_.
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
