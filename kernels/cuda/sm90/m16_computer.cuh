#pragma once

#include "kernels/cuda/sm90/m16_part_sum.cuh"
#include "kernels/cuda/sm90/m16_team_sum.cuh"

namespace mla::kernels::cuda::sm90::m16 {

/// The warps that compute.
template <bool kBf16, int kDQk, int kDV, int kBlocks>
class Computer {
  using L = Layout<kDQk, kDV>;
  using Place = RingPlace<L::kSlots>;

 public:
  __device__ __forceinline__ Computer(const DecodeArgs& args, const Worker& worker,
                                      std::uint32_t launches)
      : args_(args), w_(worker), launches_(launches) {
    part_ = w_.pointer<const Part>(L::kPart);
  }

  /// All parts; q, kv and results of earlier kernels must be complete.
  __device__ __forceinline__ void run() {
    while (true) {
      if (uniform(part_->rows) > 0) compute_part();
      const int next = uniform(part_->next);
      if (next < 0) break;
      w_.barrier_of_all();
      copy_record(args_.parts + next, w_.shared + L::kPart, w_.thread);
      w_.barrier_of_all();
    }
  }

 private:
  __device__ __forceinline__ void compute_part() {
    store_q();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      m_[i] = -INFINITY;
      l_[i] = 0;
      visible_[i] = w_.pointer<const int>(L::kVisible)[w_.row_of(i)];
    }
    all_see_ = *w_.pointer<const int>(L::kVisible);
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) o_[i][j] = 0;
    }
    const int steps = uniform(steps_of<kBlocks>(*part_));
    const int first = uniform(part_->token_begin) + w_.block * kTileTokens;
    token_end_ = uniform(part_->token_end);
    const Place part_place = place_;
    if (w_.group == 1) place_.advance(L::kTileSlots);
    for (int step = w_.group; step < steps; step += kGroups) {
      const std::int64_t begin = first + static_cast<std::int64_t>(step) * (kBlocks * kTileTokens);
      if (step > 0) await_turn();
      const bool more = step + 1 < steps;
      if (kBlocks == 1 || begin < token_end_) {  // a lone block has a tile in every step
        compute_tile(step, static_cast<int>(begin), more);
        if constexpr (kBlocks == 1) {
          if (!more) {
            finish_part();
            break;
          }
        }
        release_as_done<L::kTileSlots>();
      } else {
        skip_tile(more);
      }
      place_.advance(kGroups * L::kTileSlots);
    }
    place_ = part_place;
    place_.advance_far(steps * L::kTileSlots);
    end_part(steps);
    place_.advance(L::kTileSlots);
  }

  __device__ __forceinline__ void store_q() const {
    constexpr int kChunks = kDQk / 8;
    constexpr int kRowThreads = kComputeThreads / kRows;
    constexpr int kEach = (kChunks + kRowThreads - 1) / kRowThreads;
    const int row = w_.thread / kRowThreads;
    const int lane = w_.thread % kRowThreads;
    uint4 chunks[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) chunks[i] = make_uint4(0, 0, 0, 0);
    const int item_row = part_->row_begin + min(row, part_->rows - 1);
    const int token = item_row / part_->heads;
    const int head = item_row - token * part_->heads;
    if (lane == 0) {
      const int hidden = args_.causal ? part_->query_len - 1 - token : 0;
      w_.pointer<int>(L::kVisible)[row] = min(part_->token_end, part_->context_len - hidden);
    }
    if (row < part_->rows) {
      const auto* q = reinterpret_cast<const uint4*>(
          args_.q + part_->q + token * args_.q_token_stride + head * args_.q_head_stride);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (lane + i * kRowThreads < kChunks) chunks[i] = __ldg(q + lane + i * kRowThreads);
      }
      if (lane == 0) w_.pointer<RowPlace>(L::kRowPlaces)[row] = place_of(row, token, head);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int chunk = lane + i * kRowThreads;
      if (chunk < kChunks) {
        store_shared(w_.shared + L::kQ + chunk / 8 * (kRows * 128) + row * 128 +
                         ((chunk % 8) ^ (row % 8)) * 16,
                     chunks[i]);
      }
    }
    fence_async_proxy();
    w_.barrier_of_all();
  }

  __device__ __forceinline__ RowPlace place_of(int row, int token, int head) const {
    const std::int64_t at =
        part_->out + token * args_.out_token_stride + head * args_.out_head_stride;
    const int size = args_.out_type == OutType::kFp32 ? 4 : 2;
    return {static_cast<char*>(args_.out) + at * size,
            args_.lse + part_->lse + token * args_.lse_token_stride + head * args_.lse_head_stride};
  }

  /// Scores and weights of the tile that begins at token `begin`. The products that add its values
  /// are under way afterwards, those of a slot's columns in a group each.
  __device__ __forceinline__ void compute_tile(int step, int begin, bool more) {
    float s[8];
    place_.slot = uniform(place_.slot);  // for uniform registers: a quarter of the instructions
#pragma unroll
    for (int i = 0; i < L::kColumns; ++i) {
      if (i % L::kSlotColumns == 0) {
        wait_full(place_.plus(i / L::kSlotColumns));
        if (i / L::kSlotColumns == L::kTileSlots - 1 && more) pass_turn();
        begin_products();
      }
      const std::uint64_t k = describe_rows(column(i));
      const std::uint64_t q = describe_rows(w_.shared + L::kQ + i * (kRows * 128));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        wgmma_64x16x16<kBf16, false>(s, moved(k, j * 32), moved(q, j * 32), i + j > 0);
      }
    }
    commit_products();
    wait_for_products<0>();

    const int token = begin + w_.warp * 16 + w_.lane / 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] *= args_.scale_log2;
    if (begin + kTileTokens > all_see_) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (token + ((i >> 1) & 1) * 8 >= visible_[w_.row_index(i)]) s[i] = -INFINITY;
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
    const std::uint32_t weights = w_.shared + L::kP + w_.group * (kRows * 128);
    const int p_row = w_.lane % 8 + (w_.lane / 16) * 8;
    const int p_chunk = w_.warp * 2 + (w_.lane / 8) % 2;
    store_matrices_transposed(weights + p_row * 128 + ((p_chunk ^ (p_row % 8)) * 16), p[0], p[1],
                              p[2], p[3]);
    fence_async_proxy();
    w_.group_barrier();
#pragma unroll
    for (int i = 0; i < L::kValueColumns; ++i) pin(o_[i]);
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
  }

  /// The end of a lone block's part, for the group that has the last tile, whose values are being
  /// summed: what is done is added to the other group's sums while the rest is under way.
  __device__ __forceinline__ void finish_part() {
    PartSum<kDQk, kDV> sum(args_, w_, place_.plus(L::kTileSlots), launches_);
    sum.begin(m_, l_);
    float sums[L::kValueColumns][8];
    finish_as_done<L::kTileSlots>(sum, sums);
    sum.end(sums);
  }

  template <int kLeft>
  __device__ __forceinline__ void finish_as_done(const PartSum<kDQk, kDV>& sum,
                                                 float (&sums)[L::kValueColumns][8]) {
    if constexpr (kLeft > 0) {
      constexpr int kSlot = L::kTileSlots - kLeft;
      wait_for_products<kLeft - 1>();
      release(place_.plus(kSlot));
#pragma unroll
      for (int i = kSlot * L::kSlotColumns;
           i < min((kSlot + 1) * L::kSlotColumns, L::kValueColumns); ++i) {
        pin(o_[i]);
        sum.add(i, o_[i], sums[i]);
      }
      finish_as_done<kLeft - 1>(sum, sums);
    }
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

  /// The largest of m_ and the group's scores.
  __device__ __forceinline__ void tile_maxima(const float (&s)[8], float (&new_m)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = (i & 1) | ((i >> 1) << 2);
      new_m[i] = fmaxf(s[first], s[first + 2]);
    }
    const float largest = w_.over_lanes(new_m, [](float a, float b) { return fmaxf(a, b); });
    const std::uint32_t maxima = w_.shared + L::kMaxima + w_.group * (kGroupWarps * kRows * 4);
    if ((w_.lane & 4) == 0) store_shared(maxima + w_.reduced_row() * 16 + w_.warp * 4, largest);
    w_.group_barrier();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 of_warps = load_shared4(maxima + w_.row_of(i) * 16);
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
      for (int j = 0; j < 8; ++j) o_[i][j] *= factor[w_.row_index(j)];
    }
  }

  /// Values of tokens past the end may be anything, and 0 * NaN is NaN. All warps of the group are
  /// done with the tile's scores.
  __device__ __forceinline__ void clear_values(int tokens) const {
    for (int n = tokens * 8 + w_.thread % kGroupThreads; n < kTileTokens * 8; n += kGroupThreads) {
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
    sync_threads(Worker::kTurn + w_.group, kComputeThreads);
  }
  __device__ __forceinline__ void pass_turn() const {
    arrive_threads(Worker::kTurn + 1 - w_.group, kComputeThreads);
  }

  /// place_ is where the slots lie that the loader gives.
  __device__ __forceinline__ void end_part(int steps) {
    if constexpr (kBlocks == 1) {
      if (w_.group == (steps & 1)) {
        PartSum<kDQk, kDV>(args_, w_, place_, launches_).hand_over(m_, l_, o_);
      }
    } else {
      TeamSum<kDQk, kDV, kBlocks>(args_, w_, place_, cluster_parity_, launches_).run(m_, l_, o_);
      cluster_parity_ ^= 1;
    }
  }

  __device__ __forceinline__ std::uint32_t slot(Place place) const {
    return w_.shared + place.slot * L::kSlotBytes;
  }
  /// Column `i` of the tile at place_.
  __device__ __forceinline__ std::uint32_t column(int i) const {
    return slot(place_.plus(i / L::kSlotColumns)) + i % L::kSlotColumns * L::kColumnBytes;
  }
  __device__ __forceinline__ void wait_full(Place place) const {
    wait(w_.shared + L::kFull + place.slot * 8, place.parity);
  }
  __device__ __forceinline__ void release(Place place) const {
    __syncwarp();
    if (w_.lane == 0) arrive(w_.shared + L::kEmpty + place.slot * 8);
  }

  const DecodeArgs& args_;
  const Worker w_;
  const std::uint32_t launches_;
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
