#include "launch/bench/projected_layer.h"

#include <algorithm>
#include <cmath>

#include "core/generator.h"
#include "kernels/reference/projected_oracle.h"
#include "launch/machine.h"

namespace mla::launch::bench {
namespace {

/// How many sets of packed weights to take turns with.
std::int64_t weight_sets(std::int64_t bytes, bool hot) {
  constexpr std::int64_t kMostSets = 64;  // small weights are not worth thousands
  if (hot) return 1;
  return std::min(kMostSets, 1 + ceil_div(4 * last_level_cache_bytes(), bytes));
}

/// `blocks` generated blocks of `size` elements each.
std::vector<std::uint16_t> generated(GeneratedTensor tensor, DType dtype, std::int64_t blocks,
                                     std::int64_t size) {
  std::vector<std::uint16_t> elements(blocks * size);
#pragma omp parallel for schedule(static)
  for (std::int64_t block = 0; block < blocks; ++block) {
    generate_elements(2, tensor, block, 0, dtype,
                      {elements.data() + block * size, static_cast<std::size_t>(size)});
  }
  return elements;
}

}  // namespace

ProjectedLayer::ProjectedLayer(const Point& point, const Pool& pool,
                               const kernels::HostBackend& backend, bool hot)
    : point_(point),
      pool_(pool),
      backend_(backend),
      hot_(hot),
      batch_(make_batch(point)),
      queries_(generated(GeneratedTensor::kQuery, point.dtype, total_q(),
                         point.heads * (point.d_nope + point.d_rope()))),
      weight_(generated(GeneratedTensor::kKvCache, point.dtype, point.heads,
                        (point.d_nope + point.d_v_head) * point.shape.d_v)),
      pages_(static_cast<std::int64_t>(pool.elements().size()) / batch_.page_elements()) {
  batch_.softmax_scale = 1 / std::sqrt(static_cast<double>(point.d_nope + point.d_rope()));
  const std::int64_t bytes = kernels::PackedProjections::packed_bytes(backend, w_uk(), w_uv());
  for (std::int64_t i = weight_sets(bytes, hot); i > 0; --i) {
    packed_.emplace_back(backend, w_uk(), w_uv());
  }
  turn_.block_tables.resize(point.batch);
  choose_turn();
}

kernels::HeadMatrices ProjectedLayer::w_uk() const {
  return kernels::w_uk_of_kv_b_proj(weight_.data(), point_.dtype, point_.heads, point_.d_nope,
                                    point_.d_v_head, point_.shape.d_v);
}

kernels::HeadMatrices ProjectedLayer::w_uv() const {
  return kernels::w_uv_of_kv_b_proj(weight_.data(), point_.dtype, point_.heads, point_.d_nope,
                                    point_.d_v_head, point_.shape.d_v);
}

kernels::ProjectedQueries ProjectedLayer::queries() const {
  const std::int64_t row = point_.d_nope + point_.d_rope();
  return {.nope = queries_.data(),
          .nope_token_stride = point_.heads * row,
          .nope_head_stride = row,
          .rope = queries_.data() + point_.d_nope,
          .rope_token_stride = point_.heads * row,
          .rope_head_stride = row,
          .d_rope = point_.d_rope()};
}

void ProjectedLayer::choose_turn() {
  turn_.weights = &packed_[turns_++ % std::ssize(packed_)];
  for (auto& table : turn_.block_tables) table = pages_.deal(point_.blocks_of(0));
}

LayerTurn ProjectedLayer::next_turn() {
  if (!hot_) choose_turn();
  return turn_;
}

kernels::Comparison ProjectedLayer::check(const LayerTurn& turn, const RowReader& read_row) const {
  const auto oracle = [&](std::int64_t request, std::int64_t row) {
    return compute_exactly(turn, request, row);
  };
  return check_sample(point_, oracle, read_row);
}

/// The oracle of a batch of one query with one head, which sees all of its keys.
ExactRow ProjectedLayer::compute_exactly(const LayerTurn& turn, std::int64_t request,
                                         std::int64_t row) const {
  const std::int64_t query = row / point_.heads;
  const std::int64_t head = row % point_.heads;
  Point one = point_;
  one.heads = one.batch = one.query_len = 1;
  one.context_len -= point_.query_len - 1 - query;
  Batch batch = make_batch(one);
  batch.softmax_scale = batch_.softmax_scale;
  const auto of_head = [head](kernels::HeadMatrices matrices) {
    matrices.data += head * matrices.head_stride;
    matrices.heads = 1;
    return matrices;
  };
  kernels::ProjectedInputs inputs{kv(), {&turn.block_tables[request], 1}, queries()};
  const std::int64_t token = request * point_.query_len + query;
  kernels::ProjectedQueries& q = inputs.queries;
  q.nope += token * q.nope_token_stride + head * q.nope_head_stride;
  q.rope += token * q.rope_token_stride + head * q.rope_head_stride;
  ExactRow exact{.out = std::vector<double>(point_.d_v_head)};
  kernels::projected_oracle(batch, of_head(w_uk()), of_head(w_uv()), inputs, exact.out,
                            {&exact.lse, 1});
  return exact;
}

}  // namespace mla::launch::bench
