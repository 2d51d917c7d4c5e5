#include "kernels/reference/oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <omp.h>

#include "kernels/reference/exact_math.h"

namespace mla::kernels {
namespace {

/// Rows for which a cache row is widened once.
constexpr std::int64_t kTileRows = 16;

/// Memory of one thread, for a tile of rows at a time.
struct Tile {
  Tile(const MlaShape& shape, std::int64_t context_len)
      : q(kTileRows * shape.d_qk), kv(shape.d_qk), scores(kTileRows * context_len) {}

  std::vector<double> q;       ///< [16, d_qk]
  std::vector<double> kv;      ///< [d_qk]
  std::vector<double> scores;  ///< [16, context_len], natural units; then the weights
};

/// Turns the scores of the keys that a row sees into softmax weights; returns its log-sum-exp.
double softmax(double* scores, std::int64_t seen) {
  if (seen == 0) return std::numeric_limits<double>::infinity();
  const double max = *std::max_element(scores, scores + seen);
  double sum = 0;
  for (std::int64_t t = 0; t < seen; ++t) {
    scores[t] = std::exp(scores[t] - max);
    sum += scores[t];
  }
  for (std::int64_t t = 0; t < seen; ++t) scores[t] /= sum;
  return max + std::log(sum);
}

/// Rows `rows` of params, numbered from params.rows.begin.
void oracle_tile(const DecodeParams& params, Range rows, Tile& tile, double* out, double* lse) {
  const auto [h_q, h_kv, d_qk, d_v] = params.shape;
  const DType dtype = params.kv.dtype;
  const std::int64_t context = params.context_len;
  const double scale = static_cast<double>(params.scale_log2) * std::log(2.0);
  std::int64_t seen[kTileRows] = {};
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    const std::int64_t row = params.rows.begin + rows.begin + i;
    seen[i] = std::clamp<std::int64_t>(params.visible_end(row), 0, context);
    widen(dtype, params.q_row(row), d_qk, &tile.q[i * d_qk]);
  }

  for (std::int64_t t = 0; t < context; ++t) {
    widen(dtype, params.kv.row(params.block_table, t, params.kv_head), d_qk, tile.kv.data());
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      if (t < seen[i]) {
        tile.scores[i * context + t] = scale * dot(&tile.q[i * d_qk], tile.kv.data(), d_qk);
      }
    }
  }
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    lse[rows.begin + i] = softmax(tile.scores.data() + i * context, seen[i]);
  }

  std::fill(out + rows.begin * d_v, out + rows.end * d_v, 0.0);
  for (std::int64_t t = 0; t < context; ++t) {
    widen(dtype, params.kv.row(params.block_table, t, params.kv_head), d_v, tile.kv.data());
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      if (t < seen[i]) {
        const double weight = tile.scores[i * context + t];
        add_scaled(out + (rows.begin + i) * d_v, weight, tile.kv.data(), d_v);
      }
    }
  }
}

}  // namespace

void oracle(const DecodeParams& params, double* out, double* lse) {
  const std::int64_t rows = params.rows.size();
  if (rows == 0) return;
  const std::int64_t tiles = ceil_div(rows, kTileRows);
  // Allocated before the threads start, since nothing may throw out of a parallel region.
  const std::int64_t threads = std::min<std::int64_t>(tiles, omp_get_max_threads());
  std::vector<Tile> memory;
  memory.reserve(threads);
  while (static_cast<std::int64_t>(memory.size()) < threads) {
    memory.emplace_back(params.shape, params.context_len);
  }
#pragma omp parallel for schedule(dynamic) num_threads(static_cast <int>(threads))
  for (std::int64_t i = 0; i < tiles; ++i) {
    const Range tile{i * kTileRows, std::min(rows, (i + 1) * kTileRows)};
    oracle_tile(params, tile, memory[omp_get_thread_num()], out, lse);
  }
}

}  // namespace mla::kernels
