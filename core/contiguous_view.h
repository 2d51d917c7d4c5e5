#pragma once

#include <cstdint>

#include "core/batch.h"
#include "core/kv_view.h"

namespace mla {

/// The cache of `batch`, `kv_cache[num_pages, page_block_size, h_kv, d_qk]`, whose elements lie one
/// after the other at `data`.
inline KvView contiguous_view(const Batch& batch, const std::uint16_t* data) {
  return {.data = data,
          .dtype = batch.dtype,
          .page_block_size = batch.page_block_size,
          .page_stride = batch.page_elements(),
          .token_stride = batch.shape.h_kv * batch.shape.d_qk,
          .head_stride = batch.shape.d_qk};
}

}  // namespace mla
