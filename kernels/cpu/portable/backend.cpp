#include "kernels/cpu/portable/backend.h"

#include <algorithm>

#include "kernels/cpu/portable/arithmetic.h"
#include "kernels/fold_decode.h"
#include "kernels/product_loop.h"
#include "kernels/token_rows.h"
#include "kernels/workspace.h"

namespace mla::kernels::portable {
namespace {

constexpr std::int64_t kBlockTokens = 64;  // between two looks at the running maximum
constexpr std::int64_t kLanes = 8;         // query rows side by side in a tile of scores
constexpr std::int64_t kTileTokens = 4;
constexpr std::int64_t kTileRows = 4;  // of a tile of outputs
constexpr std::int64_t kTileDims = 8;

/// Arrays of one thread; `ld` is the number of query rows rounded up to whole lanes.
struct Scratch {
  const std::uint16_t** rows;  ///< [64] cache rows of the block
  std::uint16_t* zero_row;     ///< [d_qk]
  std::int32_t* visible;       ///< [128] what each query row sees of the chunk
  float* q;                    ///< [ld / 8][d_qk][8]
  float* kv;                   ///< [64][d_qk] the block in fp32
  float* scores;               ///< [64][ld], then the weights
  float* m_new;                ///< [128]
  float* rescale;              ///< [128]
  float* spill;

  Scratch(WorkspaceCutter& cut, const MlaShape& shape)
      : rows(cut.take<const std::uint16_t*>(kBlockTokens)),
        zero_row(cut.take<std::uint16_t>(shape.d_qk)),
        visible(cut.take<std::int32_t>(kMaxRowsPerItem)),
        q(cut.take<float>(kMaxRowsPerItem * shape.d_qk)),
        kv(cut.take<float>(kBlockTokens * shape.d_qk)),
        scores(cut.take<float>(kBlockTokens * kMaxRowsPerItem)),
        m_new(cut.take<float>(kMaxRowsPerItem)),
        rescale(cut.take<float>(kMaxRowsPerItem)),
        spill(cut.take<float>(0)) {}
};

void widen(DType dtype, const std::uint16_t* from, std::int64_t n, float* to) {
  if (dtype == DType::kBf16) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = widen_bf16(from[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i] = widen_fp16(from[i]);
  }
}

/// q[lane group][element][lane] <- the query rows; missing rows are 0.
void pack_queries(const DecodeParams& params, std::int64_t ld, const Scratch& s) {
  const std::int64_t d_qk = params.shape.d_qk;
  for (std::int64_t i = 0; i < ld; ++i) {
    const bool exists = i < params.rows.size();
    const std::uint16_t* from = exists ? params.q_row(params.rows.begin + i) : s.zero_row;
    widen(params.kv.dtype, from, d_qk, s.kv);
    float* to = s.q + i / kLanes * d_qk * kLanes + i % kLanes;
    for (std::int64_t k = 0; k < d_qk; ++k) to[k * kLanes] = s.kv[k];
  }
}

/// scores[token][lane] of 4 tokens and 8 query rows. Each is one sum over the elements in order.
void score_tile(const float* q, const float* kv, std::int64_t d_qk, float* scores,
                std::int64_t ld) {
  Vector sum[kTileTokens][2] = {};
  for (std::int64_t k = 0; k < d_qk; ++k) {
    const Vector q0 = load(q + k * kLanes);
    const Vector q1 = load(q + k * kLanes + 4);
    for (std::int64_t t = 0; t < kTileTokens; ++t) {
      const float element = kv[t * d_qk + k];
      sum[t][0] += q0 * element;
      sum[t][1] += q1 * element;
    }
  }
  for (std::int64_t t = 0; t < kTileTokens; ++t) {
    store(scores + t * ld, sum[t][0]);
    store(scores + t * ld + 4, sum[t][1]);
  }
}

/// One step of the online softmax over the block of `tokens` tokens that begins `block_begin`
/// tokens after the chunk: turns dot products into weights, brings m and l up to date, and says in
/// `s.rescale` by how much earlier sums shrink.
void softmax_step(const Scratch& s, std::int64_t ld, std::int64_t block_begin, std::int64_t tokens,
                  float scale_log2, const PartialView& result) {
  for (std::int64_t i = 0; i < ld; ++i) s.m_new[i] = result.m_log2[i];
  for (std::int64_t t = 0; t < tokens; ++t) {
    float* scores = s.scores + t * ld;
    const auto token = static_cast<std::int32_t>(block_begin + t);
    for (std::int64_t i = 0; i < ld; ++i) {
      const float score = token < s.visible[i] ? scores[i] * scale_log2 : kEmptyM;
      scores[i] = score;
      s.m_new[i] = s.m_new[i] < score ? score : s.m_new[i];
    }
  }
  for (std::int64_t i = 0; i < ld; ++i) {
    // A row that has seen no key keeps m = -inf; subtracting 0 instead gives weights of exactly 0.
    const float base = s.m_new[i] == kEmptyM ? 0.0F : s.m_new[i];
    s.rescale[i] = exp2(result.m_log2[i] - base);
    result.l[i] *= s.rescale[i];
    result.m_log2[i] = s.m_new[i];
    s.m_new[i] = base;
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    float* scores = s.scores + t * ld;
    for (std::int64_t i = 0; i < ld; ++i) {
      scores[i] = exp2(scores[i] - s.m_new[i]);
      result.l[i] += scores[i];
    }
  }
}

/// out[row][dim] += sum over tokens of weights[token][row] * values[token][dim], in order.
template <std::int64_t kRows>
void accumulate_tile(const float* weights, std::int64_t ld, const float* values, std::int64_t d_qk,
                     std::int64_t tokens, float* out, std::int64_t d_v) {
  Vector sum[kRows][2];
  for (std::int64_t r = 0; r < kRows; ++r) {
    sum[r][0] = load(out + r * d_v);
    sum[r][1] = load(out + r * d_v + 4);
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    const Vector v0 = load(values + t * d_qk);
    const Vector v1 = load(values + t * d_qk + 4);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float weight = weights[t * ld + r];
      sum[r][0] += v0 * weight;
      sum[r][1] += v1 * weight;
    }
  }
  for (std::int64_t r = 0; r < kRows; ++r) {
    store(out + r * d_v, sum[r][0]);
    store(out + r * d_v + 4, sum[r][1]);
  }
}

/// o <- rescale * o + weights * V for the block.
void accumulate_block(const Scratch& s, std::int64_t d_qk, std::int64_t ld, std::int64_t tokens,
                      const PartialView& result) {
  for (std::int64_t row = 0; row < result.rows; ++row) {
    if (s.rescale[row] == 1.0F) continue;  // multiplying would change no bit
    float* o = result.o + row * result.d_v;
    for (std::int64_t d = 0; d < result.d_v; ++d) o[d] *= s.rescale[row];
  }
  for (std::int64_t dim = 0; dim < result.d_v; dim += kTileDims) {
    std::int64_t row = 0;
    for (; row + kTileRows <= result.rows; row += kTileRows) {
      accumulate_tile<kTileRows>(s.scores + row, ld, s.kv + dim, d_qk, tokens,
                                 result.o + row * result.d_v + dim, result.d_v);
    }
    for (; row < result.rows; ++row) {
      accumulate_tile<1>(s.scores + row, ld, s.kv + dim, d_qk, tokens,
                         result.o + row * result.d_v + dim, result.d_v);
    }
  }
}

/// The partial of one chunk, the keys `tokens`. Blocks are counted from the chunk's begin.
void compute_chunk(const DecodeParams& params, Range tokens, const Scratch& s,
                   const PartialView& result) {
  const std::int64_t d_qk = params.shape.d_qk;
  const std::int64_t ld = round_up(result.rows, kLanes);
  std::fill_n(result.m_log2, ld, kEmptyM);
  std::fill_n(result.l, ld, 0.0F);
  std::fill_n(result.o, result.rows * result.d_v, 0.0F);
  find_visible_ends(params, tokens, {s.visible, static_cast<std::size_t>(ld)});
  for (std::int64_t begin = tokens.begin; begin < tokens.end; begin += kBlockTokens) {
    const Range block{begin, std::min(begin + kBlockTokens, tokens.end)};
    find_token_rows(params, block, s.zero_row, {s.rows, kBlockTokens});
    const std::int64_t padded = round_up(block.size(), kTileTokens);
    for (std::int64_t t = 0; t < padded; ++t) {
      widen(params.kv.dtype, s.rows[t], d_qk, s.kv + t * d_qk);
    }
    for (std::int64_t t = 0; t < padded; t += kTileTokens) {
      for (std::int64_t row = 0; row < ld; row += kLanes) {
        score_tile(s.q + row * d_qk, s.kv + t * d_qk, d_qk, s.scores + t * ld + row, ld);
      }
    }
    softmax_step(s, ld, begin - tokens.begin, block.size(), params.scale_log2, result);
    accumulate_block(s, d_qk, ld, block.size(), result);
  }
}

class Portable final : public Backend {
 public:
  std::string_view name() const override { return "portable"; }
  std::string why_unavailable() const override { return {}; }

  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override {
    WorkspaceCutter cut(nullptr);
    const Scratch scratch(cut, shape);
    cut.take<float>(fold_spill_floats(shape.d_v, chunk_tokens, max_context_len));
    return cut.bytes();
  }

  void decode(const DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override {
    WorkspaceCutter cut(workspace.data());
    const Scratch scratch(cut, params.shape);
    std::fill_n(scratch.zero_row, params.shape.d_qk, std::uint16_t{0});
    pack_queries(params, round_up(params.rows.size(), kLanes), scratch);
    fold_decode(params, chunks, nodes, scratch.spill, [&](Range tokens, const PartialView& result) {
      compute_chunk(params, tokens, scratch, result);
    });
  }

  std::string_view product_instruction(DType) const override {
    return "multiply and add of four floats";
  }
  double run_products(DType, std::int64_t count) const noexcept override {
    return product_loop<12>(count, 8, Vector{}, Vector{0.5F, 0.5F, 0.5F, 0.5F},
                            [](Vector sum, Vector half) { return sum * half + half; });
  }
};

}  // namespace

const Backend& backend() {
  static const Portable instance;
  return instance;
}

}  // namespace mla::kernels::portable
