#include "tests/support/generated_problem.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

#include "core/contiguous_view.h"
#include "core/generator.h"

namespace mla::test {

GeneratedProblem::GeneratedProblem(const MlaShape& shape, const std::vector<Lengths>& requests,
                                   std::uint64_t seed, std::int64_t page_block_size) {
  batch_.shape = shape;
  batch_.out_dtype = DType::kFp32;
  batch_.page_block_size = page_block_size;
  batch_.chunk_tokens = 64;
  batch_.softmax_scale = 0.1;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request request{.custom_id = std::to_string(i),
                    .query_len = requests[i].query_len,
                    .context_len = requests[i].context_len,
                    .block_table = {},
                    .q = {}};
    request.block_table.resize(batch_.num_blocks(request));
    batch_.num_pages += std::ssize(request.block_table);
    batch_.requests.push_back(std::move(request));
  }
  std::vector<std::int32_t> pages(batch_.num_pages);
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937_64(seed));
  auto next_page = pages.begin();
  cache_.resize(batch_.num_pages * batch_.page_elements());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = batch_.requests[i];
    for (std::int32_t& page : request.block_table) page = *next_page++;
    const auto r = static_cast<std::int64_t>(i);
    fill_cache(r, seed);
    queries_.emplace_back(request.query_len * shape.h_q * shape.d_qk);
    generate_elements(seed, GeneratedTensor::kQuery, r, 0, batch_.dtype, queries_.back());
  }
}

void GeneratedProblem::fill_cache(std::int64_t request, std::uint64_t seed) {
  const std::int64_t row = batch_.shape.h_kv * batch_.shape.d_qk;
  const KvView view = contiguous_view(batch_, cache_.data());
  const Request& r = batch_.requests[request];
  std::vector<std::uint16_t> rows(r.context_len * row);
  generate_elements(seed, GeneratedTensor::kKvCache, request, 0, batch_.dtype, rows);
  for (std::int64_t token = 0; token < r.context_len; ++token) {
    const auto at = view.row(r.block_table.data(), token, 0) - view.data;
    std::copy_n(rows.data() + token * row, row, cache_.data() + at);
  }
}

GeneratedProblem GeneratedProblem::reversed() const {
  GeneratedProblem other = *this;
  std::reverse(other.batch_.requests.begin(), other.batch_.requests.end());
  std::reverse(other.queries_.begin(), other.queries_.end());
  return other;
}

kernels::RankInputs GeneratedProblem::inputs(std::span<const Piece> pieces) const {
  const MlaShape& shape = batch_.shape;
  kernels::RankInputs inputs{.kv = contiguous_view(batch_, cache_.data()), .pieces = {}};
  for (const Piece& piece : pieces) {
    inputs.pieces.push_back({.block_table = batch_.requests[piece.request].block_table.data(),
                             .q = queries_[piece.request].data() + piece.heads.begin * shape.d_qk,
                             .first_head = piece.heads.begin,
                             .q_token_stride = shape.h_q * shape.d_qk,
                             .q_head_stride = shape.d_qk});
  }
  return inputs;
}

}  // namespace mla::test
