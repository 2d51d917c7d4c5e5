#include "kernels/token_rows.h"

#include <algorithm>

namespace mla::kernels {

void find_token_rows(const DecodeParams& params, Range tokens, const std::uint16_t* padding,
                     std::span<const std::uint16_t*> rows) {
  const KvView& kv = params.kv;
  std::size_t i = 0;
  for (std::int64_t token = tokens.begin; token < tokens.end;) {
    const std::int64_t slot = token % kv.page_block_size;
    const std::int64_t run = std::min(kv.page_block_size - slot, tokens.end - token);
    const std::uint16_t* row = kv.row(params.block_table, token, params.kv_head);
    for (std::int64_t k = 0; k < run; ++k) rows[i++] = row + k * kv.token_stride;
    token += run;
  }
  std::fill(rows.begin() + static_cast<std::ptrdiff_t>(i), rows.end(), padding);
}

void find_next_pieces(const DecodeParams& params, std::int64_t begin, std::int64_t limit,
                      const std::uint16_t* padding, std::span<const std::uint16_t*> pieces) {
  const auto bytes = static_cast<std::size_t>(params.shape.d_qk * size_of(params.kv.dtype));
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::int64_t after = limit - begin - static_cast<std::int64_t>(i) - 1;
    const std::size_t offset = static_cast<std::size_t>(after) * bytes;
    const bool exists = after >= 0 && offset + bytes <= params.next.size();
    pieces[i] =
        exists ? reinterpret_cast<const std::uint16_t*>(params.next.data() + offset) : padding;
  }
}

void find_visible_ends(const DecodeParams& params, Range tokens, std::span<std::int32_t> visible) {
  const std::int64_t rows = params.rows.size();
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t end = params.visible_end(params.rows.begin + i);
    const std::int64_t seen = std::clamp<std::int64_t>(end - tokens.begin, 0, tokens.size());
    visible[i] = static_cast<std::int32_t>(seen);
  }
  std::fill(visible.begin() + rows, visible.end(), 0);
}

}  // namespace mla::kernels
