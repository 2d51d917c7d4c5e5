#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"

namespace mla::kernels {

/// Looks up where the cache rows of `tokens` lie, a page at a time; the rest of `rows` gets
/// `padding`. Needs tokens.size() <= rows.size().
void find_token_rows(const DecodeParams& params, Range tokens, const std::uint16_t* padding,
                     std::span<const std::uint16_t*> rows);

/// Pieces of `params.next`, as long as a row, for the tokens from `begin` on to prefetch: the last
/// token before `limit` has the first piece. Tokens that there is no piece for get `padding`.
void find_next_pieces(const DecodeParams& params, std::int64_t begin, std::int64_t limit,
                      const std::uint16_t* padding, std::span<const std::uint16_t*> pieces);

/// Ends of what each row of `params.rows` sees of the keys `tokens`, counted from tokens.begin and
/// clamped to [0, tokens.size()]; 0 for the padding rows up to `visible.size()`.
void find_visible_ends(const DecodeParams& params, Range tokens, std::span<std::int32_t> visible);

}  // namespace mla::kernels
