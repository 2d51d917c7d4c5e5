#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace mla::dist {

/// Tokens of a page of the cache.
inline constexpr std::int64_t kPageTokens = 64;

/// Sizes that the memory of a model's ranks depends on.
struct ModelLimits {
  DType kv_dtype = DType::kFp16;  ///< of the cache and of absorbed queries
  std::int64_t num_pages = 0;     ///< of the cache of each group; of each rank where it is split
  std::int64_t max_tokens = 0;    ///< of one step, all groups together
  std::int64_t max_logits = 0;    ///< rows of logits of one step, all groups together
};

}  // namespace mla::dist
