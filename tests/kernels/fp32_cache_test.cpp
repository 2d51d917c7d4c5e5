#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/aligned_buffer.h"
#include "kernels/backend.h"

namespace mla::kernels {
namespace {

constexpr MlaShape kShape{.h_q = 3, .h_kv = 1, .d_qk = 40, .d_v = 32};
constexpr std::int64_t kContext = 700;
constexpr std::int64_t kPage = 64;
constexpr std::int64_t kQueries = 2;

/// The partial of all chunks for rows whose numbers are stored as `dtype`, `words` 16-bit words
/// each.
std::vector<float> decode(const HostBackend& backend, DType dtype, const std::uint16_t* q,
                          const std::uint16_t* kv, std::int64_t words) {
  std::vector<std::int32_t> pages;
  for (std::int32_t p = 0; p < ceil_div(kContext, kPage); ++p) pages.push_back(p);
  const std::int64_t row = kShape.d_qk * words;
  const DecodeParams params{.shape = kShape,
                            .scale_log2 = 0.2F,
                            .kv = {.data = kv,
                                   .dtype = dtype,
                                   .page_block_size = kPage,
                                   .page_stride = kPage * row,
                                   .token_stride = row,
                                   .head_stride = row},
                            .block_table = pages.data(),
                            .context_len = kContext,
                            .q = q,
                            .q_token_stride = kShape.h_q * row,
                            .q_head_stride = row,
                            .query_len = kQueries,
                            .heads = kShape.h_q,
                            .rows = {0, kQueries * kShape.h_q}};
  AlignedBuffer<std::byte> workspace(static_cast<std::size_t>(
      backend.workspace_bytes(kShape, params.chunk_tokens, params.context_len)));
  const std::int64_t rows = params.rows.size();
  AlignedBuffer<float> nodes(static_cast<std::size_t>(partial_floats(rows, kShape.d_v)));
  backend.decode(params, {0, params.num_chunks()}, nodes.data(), workspace.span());
  const PartialView root = partial_at(nodes.data(), rows, kShape.d_v);
  std::vector<float> result(root.m_log2, root.m_log2 + rows);
  result.insert(result.end(), root.l, root.l + rows);
  result.insert(result.end(), root.o, root.o + rows * kShape.d_v);
  return result;
}

TEST(Fp32Caches, GiveTheBitsOfFp16OnesThatHoldTheSameNumbers) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto q_size = static_cast<std::size_t>(kQueries * kShape.h_q * kShape.d_qk);
  const auto kv_size = static_cast<std::size_t>(round_up(kContext, kPage) * kShape.d_qk);
  std::vector<std::uint16_t> halves;
  AlignedBuffer<float> floats(q_size + kv_size);
  for (std::size_t i = 0; i < q_size + kv_size; ++i) {
    halves.push_back(to_fp16(normal(random)).bits);
    floats.data()[i] = to_float(Fp16{halves.back()});
  }
  const auto* const words = reinterpret_cast<const std::uint16_t*>(floats.data());
  for (const HostBackend* backend : host_backends()) {
    if (!backend->why_unavailable().empty()) continue;
    const auto narrow = decode(*backend, DType::kFp16, halves.data(), halves.data() + q_size, 1);
    const auto wide = decode(*backend, DType::kFp32, words, words + 2 * q_size, 2);
    EXPECT_EQ(narrow, wide) << backend->name();
  }
}

}  // namespace
}  // namespace mla::kernels
