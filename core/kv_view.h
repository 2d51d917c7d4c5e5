#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace mla {

/// A paged cache in memory, not owned: element (page, slot, head, d) lies at
/// `data[page * page_stride + slot * token_stride + head * head_stride + d]`. All offsets are
/// 64-bit. Elements are the bit patterns of `dtype`. Backends of CPUs take fp32, too (those that
/// compute in fp32): then an element is two of `data`, and distances count these.
struct KvView {
  const std::uint16_t* data = nullptr;
  DType dtype = DType::kBf16;
  std::int64_t page_block_size = 64;  ///< tokens per page
  std::int64_t page_stride = 0;       ///< elements between pages
  std::int64_t token_stride = 0;      ///< elements between the tokens of a page
  std::int64_t head_stride = 0;       ///< elements between the heads of a token

  /// The row of `token` (a position in the sequence) for `kv_head`, found through the sequence's
  /// block table.
  const std::uint16_t* row(const std::int32_t* block_table, std::int64_t token,
                           std::int64_t kv_head) const {
    const std::int64_t page = block_table[token / page_block_size];
    return data + page * page_stride + token % page_block_size * token_stride +
           kv_head * head_stride;
  }
};

}  // namespace mla
