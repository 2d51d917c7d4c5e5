#include "dist/model/prefill.h"

#include <algorithm>
#include <cstring>
#include <numbers>

#include <omp.h>

#include "core/split_plan.h"
#include "kernels/weight_rows.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kChunk = kDefaultChunkTokens;

/// Heads that are expanded together, at most: enough to occupy many threads between two barriers.
constexpr std::int64_t kMostHeads = 16;

std::int64_t most_heads(const AttentionConfig& a, const ModelSharding& sharding) {
  return std::min(kMostHeads, ceil_div(a.num_heads, sharding.group_size));
}

/// Rows [V | K | rope], so that values are a row's first elements as the engine expects. Queries
/// are zero where V is.
MlaShape shape_of_head(const AttentionConfig& a) {
  const std::int64_t d_v = round_up(a.v_head_dim, 16);
  return {.h_q = 1, .h_kv = 1, .d_qk = round_up(d_v + q_head_dim(a), 8), .d_v = d_v};
}

WeightType type_of(DType dtype) {
  if (dtype == DType::kFp32) return WeightType::kFp32;
  return dtype == DType::kBf16 ? WeightType::kBf16 : WeightType::kFp16;
}

}  // namespace

PrefillAttention::PrefillAttention(const RankContext& context)
    : context_(context),
      config_(context.config.attention),
      heads_(context.part(config_.num_heads)),
      row_width_(cache_width(config_)),
      shape_(shape_of_head(config_)),
      dtype_(context.limits.kv_dtype),
      partial_floats_(partial_floats(kMaxRowsPerItem, shape_.d_v)),
      workspace_bytes_(context.backend.workspace_bytes(shape_, kChunk, kChunk)) {
  const std::int64_t tokens = context.limits.max_tokens;
  const std::int64_t heads = most_heads(config_, context.sharding);
  const std::int64_t row_bytes = shape_.d_qk * size_of(dtype_);
  if (context.sharding.splits_cache()) {
    read_ = AlignedBuffer<std::byte>(kChunk * row_width_ * size_of(dtype_));
  }
  rows_ = AlignedBuffer<float>(kChunk * row_width_);
  expanded_ = AlignedBuffer<float>(kChunk * expanded_rows(context.config, context.sharding));
  kv_ = AlignedBuffer<std::byte>(heads * kChunk * row_bytes);
  q_ = AlignedBuffer<std::byte>(tokens * heads_.size() * row_bytes);
  partials_ =
      AlignedBuffer<float>(ceil_div(tokens, kMaxRowsPerItem) * heads_.size() * partial_floats_);
  thread_memory_ =
      AlignedBuffer<std::byte>(context.threads * (partial_floats_ * 4 + workspace_bytes_));
  // What pads rows is never written again.
  for (AlignedBuffer<std::byte>* padded : {&kv_, &q_}) {
    std::fill_n(padded->data(), padded->size(), std::byte{0});
  }
}

std::int64_t PrefillAttention::expanded_rows(const ModelConfig& config,
                                             const ModelSharding& sharding) {
  const AttentionConfig& a = config.attention;
  return most_heads(a, sharding) * kv_b_head_dim(a);
}

std::int64_t PrefillAttention::buffer_bytes(const ModelConfig& config, const ModelLimits& limits,
                                            const ModelSharding& sharding) {
  const AttentionConfig& a = config.attention;
  const MlaShape shape = shape_of_head(a);
  const std::int64_t heads = ceil_div(a.num_heads, sharding.group_size);
  const std::int64_t row_bytes = shape.d_qk * size_of(limits.kv_dtype);
  const std::int64_t key_bytes =
      (sharding.splits_cache() ? cache_width(a) * size_of(limits.kv_dtype) : 0) +
      4 * (cache_width(a) + expanded_rows(config, sharding)) + most_heads(a, sharding) * row_bytes;
  return kChunk * key_bytes + limits.max_tokens * heads * row_bytes +
         4 * ceil_div(limits.max_tokens, kMaxRowsPerItem) * heads *
             partial_floats(kMaxRowsPerItem, shape.d_v);
}

void PrefillAttention::run(const GroupStep& step, const MatrixView& kv_b, const std::byte* cache,
                           const float* q, float* values, std::int64_t stride) {
  if (heads_.empty() && !context_.sharding.splits_cache()) return;
  if (!step.prefills.empty()) {
    context_.bytes_read += heads_.size() * kv_b_head_dim(config_) * kv_b.row_bytes();
  }
  round_queries(step, q);
  for (const Part& part : step.prefills) {
    for (Range keys{0, kChunk}; keys.begin < part.context(); keys.begin = keys.end) {
      keys.end = std::min(keys.begin + kChunk, part.context());
      read_rows(part, keys, cache);
      for (Range heads = heads_; !heads.empty(); heads.begin += kMostHeads) {
        const Range some{heads.begin, std::min(heads.begin + kMostHeads, heads.end)};
        expand(kv_b, some, keys.size());
        attend(part, keys, some);
      }
    }
    finish(part, values, stride);
  }
}

/// (0, nope, rope), scaled, in the type of the cache.
void PrefillAttention::round_queries(const GroupStep& step, const float* q) {
  const std::int64_t heads = heads_.size();
  const std::int64_t dim = q_head_dim(config_);
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t i = step.absorbed_tokens * heads; i < step.tokens() * heads; ++i) {
    kernels::store_scaled(dtype_, q + i * dim, dim, step.q_scales[i / heads],
                          q_.data() + (i * shape_.d_qk + shape_.d_v) * size_of(dtype_));
  }
}

/// rows[keys] <- rows of the cache; where it is split, those of the rank that has the chunk.
void PrefillAttention::read_rows(const Part& part, Range keys, const std::byte* cache) {
  const bool is_split = context_.sharding.splits_cache();
  const std::int64_t row_bytes = row_width_ * size_of(dtype_);
  const auto row_of = [&](std::int64_t key) {
    return part.pages[key / kPageTokens] * kPageTokens + key % kPageTokens;
  };
  MatrixView from{.data = cache,
                  .type = type_of(dtype_),
                  .rows = context_.limits.num_pages * kPageTokens,
                  .cols = row_width_};
  if (is_split) {
    const int owner = context_.sharding.cache_rank(keys.begin);
    if (owner == context_.group.rank()) {
      std::byte* to = read_.data();
      for (std::int64_t key = keys.begin; key < keys.end; ++key, to += row_bytes) {
        std::memcpy(to, cache + row_of(key) * row_bytes, static_cast<std::size_t>(row_bytes));
      }
    }
    check_mpi(MPI_Bcast(read_.data(), static_cast<int>(keys.size() * row_bytes), MPI_BYTE, owner,
                        context_.group.handle()),
              "MPI_Bcast");
    from.data = read_.data();
  }
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t i = 0; i < keys.size(); ++i) {
    kernels::widen_row(from, is_split ? i : row_of(keys.begin + i), rows_.data() + i * row_width_);
  }
}

/// kv[head][key] <- (V, K, rope) of `heads` and the first `keys` of `rows_`.
void PrefillAttention::expand(const MatrixView& kv_b, Range heads, std::int64_t keys) {
  const std::int64_t nope = config_.qk_nope_head_dim;
  const std::int64_t dim = kv_b_head_dim(config_);
  const std::int64_t size = size_of(dtype_);
  kernels::linear(context_.backend,
                  {.weights = kv_b,
                   .outputs = {heads.begin * dim, heads.end * dim},
                   .rows = keys,
                   .x = rows_.data(),
                   .x_stride = row_width_,
                   .y = expanded_.data(),
                   .y_stride = heads.size() * dim},
                  context_.threads, context_.linear_workspace);
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t i = 0; i < heads.size() * keys; ++i) {
    const std::int64_t head = i / keys;
    const std::int64_t key = i % keys;
    const float* const from = expanded_.data() + (key * heads.size() + head) * dim;
    const float* const rope = rows_.data() + key * row_width_ + config_.kv_lora_rank;
    std::byte* const to = kv_.data() + (head * kChunk + key) * shape_.d_qk * size;
    std::byte* const to_key = to + shape_.d_v * size;
    kernels::store_scaled(dtype_, from + nope, config_.v_head_dim, 1, to);
    kernels::store_scaled(dtype_, from, nope, 1, to_key);
    kernels::store_scaled(dtype_, rope, config_.qk_rope_head_dim, 1, to_key + nope * size);
  }
}

/// Adds a chunk's keys to the partials of all queries that see any of them.
void PrefillAttention::attend(const Part& part, Range keys, Range heads) {
  const std::int64_t slices = ceil_div(part.tokens.size(), kMaxRowsPerItem);
#pragma omp parallel for schedule(dynamic) num_threads(context_.threads)
  for (std::int64_t task = 0; task < slices * heads.size(); ++task) {
    const std::int64_t slice = task % slices;
    const std::int64_t head = task / slices;
    const Range rows = rows_of(part, slice);
    if (part.start + rows.end <= keys.begin) continue;
    const PartialView sum = partial_of(part, slice, heads.begin + head - heads_.begin);
    auto* const memory =
        thread_memory_.data() + omp_get_thread_num() * (partial_floats_ * 4 + workspace_bytes_);
    const PartialView chunk =
        keys.begin == 0 ? sum
                        : partial_at(reinterpret_cast<float*>(memory), rows.size(), shape_.d_v);
    context_.backend.decode(
        decode_params(part, keys, rows, heads.begin, head), {0, 1}, chunk.m_log2,
        {memory + partial_floats_ * 4, static_cast<std::size_t>(workspace_bytes_)});
    if (keys.begin > 0) merge_here(sum, chunk);
  }
}

/// Of some rows of `part` as a request of their own, whose keys are counted from the chunk's begin.
kernels::DecodeParams PrefillAttention::decode_params(const Part& part, Range keys, Range rows,
                                                      std::int64_t first_head,
                                                      std::int64_t head) const {
  static constexpr std::int32_t kOnlyPage = 0;
  const std::int64_t row_words = shape_.d_qk * size_of(dtype_) / 2;
  const std::int64_t token_words = heads_.size() * row_words;
  const auto* const kv = reinterpret_cast<const std::uint16_t*>(kv_.data());
  const auto* const q = reinterpret_cast<const std::uint16_t*>(q_.data());
  return {.shape = shape_,
          .chunk_tokens = kChunk,
          .scale_log2 = static_cast<float>(config_.softmax_scale * std::numbers::log2e),
          .kv = {.data = kv + head * kChunk * row_words,
                 .dtype = dtype_,
                 .page_block_size = kChunk,
                 .token_stride = row_words},
          .block_table = &kOnlyPage,
          .context_len = part.start + rows.end - keys.begin,
          .q = q + (part.tokens.begin + rows.begin) * token_words +
               (first_head + head - heads_.begin) * row_words,
          .q_token_stride = token_words,
          .query_len = rows.size(),
          .heads = 1,
          .rows = {0, rows.size()},
          .q_zeros = shape_.d_v};
}

void PrefillAttention::finish(const Part& part, float* values, std::int64_t stride) {
  const std::int64_t v = config_.v_head_dim;
#pragma omp parallel for schedule(static) num_threads(context_.threads)
  for (std::int64_t row = 0; row < part.tokens.size(); ++row) {
    float* const to = values + (part.tokens.begin + row) * stride;
    for (std::int64_t head = 0; head < heads_.size(); ++head) {
      finalize_out(partial_of(part, row / kMaxRowsPerItem, head), row % kMaxRowsPerItem, {0, v},
                   to + head * v);
    }
  }
}

/// Queries of `part`, as many as the engine takes at a time.
Range PrefillAttention::rows_of(const Part& part, std::int64_t slice) {
  const std::int64_t begin = slice * kMaxRowsPerItem;
  return {begin, std::min(begin + kMaxRowsPerItem, part.tokens.size())};
}

/// @param head counted from this rank's first
PartialView PrefillAttention::partial_of(const Part& part, std::int64_t slice, std::int64_t head) {
  return partial_at(partials_.data() + (slice * heads_.size() + head) * partial_floats_,
                    rows_of(part, slice).size(), shape_.d_v);
}

}  // namespace mla::dist
