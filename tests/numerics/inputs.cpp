#include "tests/numerics/inputs.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <string>

#include "core/error.h"
#include "core/generator.h"
#include "core/random_stream.h"
#include "tests/support/problem.h"

namespace mla::test {
namespace {

constexpr std::int64_t kPageTokens = 64;
constexpr int kScoreParts = 3;
constexpr double kHuge = 1e4;

double no_score(const InputToken&) {
  return 0;
}
double unchanged(const InputToken&) {
  return 1;
}

/// How far along the context a token is, in [0, 1).
double place(const InputToken& t) {
  return static_cast<double>(t.position) / static_cast<double>(t.context_len);
}

/// About 98 % of row 0's weight on one token, however many others there are.
double needle(const InputToken& t, std::int64_t position) {
  return t.position == position ? std::log(static_cast<double>(t.context_len)) + 4 : 0;
}

/// A triangle between 0 and 4, 1000 tokens long, on a slow rise: the running maximum moves in every
/// other stretch of blocks, chunks differ, and the global maximum comes last.
double wander(const InputToken& t) {
  const double phase = static_cast<double>(t.position % 1000) / 1000;
  return 4 * (1 - std::fabs(2 * phase - 1)) + 2 * place(t);
}

/// A Pareto tail of index 2, so the variance does not exist; cut where fp16 would overflow.
double heavy_tail(const InputToken& t) {
  return std::min(1 / std::sqrt(t.uniform), 1000.0);
}

/// The `uniform` of a token: the upper bits of SplitMix64's output.
double uniform_of(std::uint64_t seed, std::int64_t token) {
  const std::uint64_t x = split_mix((seed << 32) + static_cast<std::uint64_t>(token) * kGoldenStep);
  return (static_cast<double>(x >> 11) + 0.5) * 0x1p-53;
}

}  // namespace

const std::vector<InputKind>& input_kinds() {
  using T = const InputToken&;
  static const std::vector<InputKind> kinds{
      {"random", 1, 0, no_score, unchanged},
      {"spread", 24, 0, no_score, unchanged},
      {"heavy_tailed", 1, 0, no_score, heavy_tail},
      {"needle_first", 1, 0, [](T t) { return needle(t, 0); }, unchanged},
      {"needle_middle", 1, 0, [](T t) { return needle(t, t.context_len / 2 + 17); }, unchanged},
      {"needle_last", 1, 0, [](T t) { return needle(t, t.context_len - 1); }, unchanged},
      {"drift_up", 0, 0, [](T t) { return 8 * place(t); }, unchanged},
      {"drift_down", 0, 0, [](T t) { return 8 - 8 * place(t); }, unchanged},
      {"wander", 0, 0, wander, unchanged},
      {"high", 12, 0, [](T) { return kHuge; }, unchanged},
      {"low", 12, 0, [](T) { return -kHuge; }, unchanged},
      {"huge", 1, 0, [](T t) { return kHuge * (2 * t.uniform - 1); }, unchanged},
      {"levels", 0, 0.25F, [](T t) { return t.position % 512 == 0 ? 0.45 : 0.0; }, unchanged},
  };
  return kinds;
}

const InputKind& find_input_kind(std::string_view name) {
  std::string choices;
  for (const InputKind& kind : input_kinds()) {
    if (kind.name == name) return kind;
    choices += (choices.empty() ? "" : ", ") + std::string(kind.name);
  }
  throw InvalidArgument("--inputs", name, "one of " + choices);
}

Input::Input(const InputKind& kind, const MlaShape& shape, DType dtype, std::int64_t context_len,
             std::uint64_t seed)
    : shape_(shape),
      dtype_(dtype),
      context_len_(context_len),
      q_(shape.h_q * shape.d_qk),
      block_table_(ceil_div(context_len, kPageTokens)),
      kv_(static_cast<std::size_t>(round_up(context_len, kPageTokens) * shape.d_qk)) {
  std::iota(block_table_.begin(), block_table_.end(), 0);
  fill_queries(kind, seed);
#pragma omp parallel for
  for (std::int64_t token = 0; token < context_len; ++token) fill_token(kind, seed, token);
}

void Input::fill_queries(const InputKind& kind, std::uint64_t seed) {
  generate_elements(seed, GeneratedTensor::kQuery, 0, 0, dtype_, q_);
  for (std::uint16_t& element : q_) {
    element = to_bits(dtype_, static_cast<double>(to_float(dtype_, element) * kind.q_magnitude));
  }
  for (std::int64_t row = 0; row < shape_.h_q; ++row) {
    const double factor =
        std::sqrt(static_cast<double>(shape_.d_qk)) * static_cast<double>(16 - row) / 16;
    std::fill_n(q_.begin() + row * shape_.d_qk + shape_.d_v, kScoreParts, to_bits(dtype_, factor));
  }
}

void Input::fill_token(const InputKind& kind, std::uint64_t seed, std::int64_t token) {
  const InputToken input{token, context_len_, uniform_of(seed, token)};
  const std::span<std::uint16_t> row =
      kv_.span().subspan(token * shape_.d_qk, static_cast<std::size_t>(shape_.d_qk));
  generate_elements(seed, GeneratedTensor::kKvCache, token, 0, dtype_, row);
  const double factor = kind.row_factor(input);
  const auto mean = static_cast<double>(kind.value_mean);
  if (factor != 1 || mean != 0) {
    for (std::uint16_t& element : row) {
      element = to_bits(dtype_, static_cast<double>(to_float(dtype_, element)) * factor + mean);
    }
  }
  double rest = kind.score(input);
  for (std::uint16_t& part : row.subspan(shape_.d_v, kScoreParts)) {
    part = to_bits(dtype_, rest);
    rest -= static_cast<double>(to_float(dtype_, part));
  }
}

kernels::DecodeParams Input::params(std::int64_t chunk_tokens) const {
  kernels::DecodeParams params;
  params.shape = shape_;
  params.chunk_tokens = chunk_tokens;
  params.scale_log2 = std::numbers::log2e_v<float> / std::sqrt(static_cast<float>(shape_.d_qk));
  params.kv = {kv_.data(),  dtype_,     kPageTokens, kPageTokens * shape_.d_qk,
               shape_.d_qk, shape_.d_qk};
  params.block_table = block_table_.data();
  params.context_len = context_len_;
  params.q = q_.data();
  params.q_token_stride = shape_.h_q * shape_.d_qk;
  params.q_head_stride = shape_.d_qk;
  params.heads = shape_.h_q;
  params.rows = {0, shape_.h_q};
  return params;
}

}  // namespace mla::test
