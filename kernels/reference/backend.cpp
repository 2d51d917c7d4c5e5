#include "kernels/reference/backend.h"

#include <algorithm>
#include <cmath>

#include "kernels/fold_decode.h"
#include "kernels/product_loop.h"
#include "kernels/reference/exact_math.h"
#include "kernels/workspace.h"

namespace mla::kernels::reference {
namespace {

struct Scratch {
  double* q;       ///< [d_qk]
  double* kv;      ///< [d_qk]
  double* scores;  ///< [chunk_tokens]
  double* o;       ///< [d_v]
  float* spill;

  Scratch(WorkspaceCutter& cut, const MlaShape& shape, std::int64_t chunk_tokens)
      : q(cut.take<double>(shape.d_qk)),
        kv(cut.take<double>(shape.d_qk)),
        scores(cut.take<double>(chunk_tokens)),
        o(cut.take<double>(shape.d_v)),
        spill(cut.take<float>(0)) {}
};

/// The partial of query row `row` (of params.rows) over the keys `tokens` that it sees.
void compute_row(const DecodeParams& params, Range tokens, std::int64_t row, const Scratch& s,
                 const PartialView& result) {
  const auto [h_q, h_kv, d_qk, d_v] = params.shape;
  const DType dtype = params.kv.dtype;
  const auto cache_row = [&](std::int64_t token) {
    return params.kv.row(params.block_table, token, params.kv_head);
  };
  widen(dtype, params.q_row(params.rows.begin + row), d_qk, s.q);
  const std::int64_t end = std::min(tokens.end, params.visible_end(params.rows.begin + row));

  double max = -std::numeric_limits<double>::infinity();
  for (std::int64_t t = tokens.begin; t < end; ++t) {
    widen(dtype, cache_row(t), d_qk, s.kv);
    const double score = dot(s.q, s.kv, d_qk) * static_cast<double>(params.scale_log2);
    s.scores[t - tokens.begin] = score;
    max = std::max(max, score);
  }

  // l and o belong to the maximum as it is stored, rounded to fp32.
  const auto m = static_cast<float>(max);
  double l = 0;
  std::fill_n(s.o, d_v, 0.0);
  for (std::int64_t t = tokens.begin; t < end; ++t) {
    const double weight = std::exp2(s.scores[t - tokens.begin] - static_cast<double>(m));
    widen(dtype, cache_row(t), d_v, s.kv);
    add_scaled(s.o, weight, s.kv, d_v);
    l += weight;
  }
  result.m_log2[row] = m;
  result.l[row] = static_cast<float>(l);
  for (std::int64_t d = 0; d < d_v; ++d) result.o[row * d_v + d] = static_cast<float>(s.o[d]);
}

class Reference final : public HostBackend {
 public:
  std::string_view name() const override { return "reference"; }
  std::string why_unavailable() const override { return {}; }

  std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                               std::int64_t max_context_len) const override {
    WorkspaceCutter cut(nullptr);
    const Scratch scratch(cut, shape, chunk_tokens);
    cut.take<float>(fold_spill_floats(shape.d_v, chunk_tokens, max_context_len));
    return cut.bytes();
  }

  void decode(const DecodeParams& params, Range chunks, float* nodes,
              std::span<std::byte> workspace) const noexcept override {
    WorkspaceCutter cut(workspace.data());
    const Scratch scratch(cut, params.shape, params.chunk_tokens);
    fold_decode(params, chunks, nodes, scratch.spill, [&](Range tokens, const PartialView& result) {
      for (std::int64_t row = 0; row < result.rows; ++row) {
        compute_row(params, tokens, row, scratch, result);
      }
    });
  }

  std::string_view product_instruction(DType) const override {
    return "multiply and add of one double";
  }
  double run_products(DType, std::int64_t count) const noexcept override {
    return product_loop<12>(count, 2, 0.0, 0.5,
                            [](double sum, double half) { return sum * half + half; });
  }
};

}  // namespace

const HostBackend& backend() {
  static const Reference instance;
  return instance;
}

}  // namespace mla::kernels::reference
