#include "dist/model/cache_decoder.h"

namespace mla::dist {
namespace {

const std::uint16_t* words(const std::byte* bytes) {
  return reinterpret_cast<const std::uint16_t*>(bytes);
}

}  // namespace

CacheDecoder::CacheDecoder(const RankContext& context, std::int64_t heads) : context_(context) {
  const AttentionConfig& a = context.config.attention;
  batch_.shape = {.h_q = heads, .h_kv = 1, .d_qk = cache_width(a), .d_v = a.kv_lora_rank};
  batch_.dtype = context.limits.kv_dtype;
  batch_.out_dtype = DType::kFp32;
  batch_.page_block_size = kPageTokens;
  batch_.num_pages = context.limits.num_pages;
  batch_.softmax_scale = a.softmax_scale;
}

void CacheDecoder::begin(const GroupStep& step) {
  batch_.requests.clear();
  for (const GroupStep::Part& part : step.absorbed) {
    Request& request = batch_.requests.emplace_back();
    request.query_len = part.tokens.size();
    request.context_len = part.context();
  }
}

void CacheDecoder::plan(const GroupStep& step, std::span<const Piece> pieces,
                        const std::byte* queries) {
  // The engine counts in words of 16 bits, of which an fp32 element is two.
  const std::int64_t row = batch_.shape.d_qk * size_of(batch_.dtype) / 2;
  inputs_.kv = {.dtype = batch_.dtype,
                .page_block_size = kPageTokens,
                .page_stride = kPageTokens * row,
                .token_stride = row,
                .head_stride = row};
  inputs_.pieces.clear();
  const std::int64_t token_stride = batch_.shape.h_q * row;
  for (const Piece& piece : pieces) {
    const GroupStep::Part& part = step.absorbed[piece.request];
    inputs_.pieces.push_back({.block_table = part.pages.data(),
                              .q = words(queries) + part.tokens.begin * token_stride,
                              .q_token_stride = token_stride,
                              .q_head_stride = row});
  }
  decoder_.reset();
  plan_ = make_split_plan(batch_, pieces, context_.threads);
  const auto bytes =
      static_cast<std::size_t>(kernels::workspace_size(batch_, plan_, context_.backend).bytes());
  if (memory_.size() < bytes) memory_ = AlignedBuffer<std::byte>(bytes);
  decoder_.emplace(batch_, plan_, context_.backend, memory_.span());
}

const std::vector<kernels::OpenItem>& CacheDecoder::run(const std::byte* cache,
                                                        ResultSink& results) {
  inputs_.kv.data = words(cache);
  return decoder_->run(inputs_, results);
}

}  // namespace mla::dist
