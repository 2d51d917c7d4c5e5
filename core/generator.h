#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.h"
#include "core/model_weights.h"

namespace mla {

/// The tensors that a generated element can belong to; each has a stream of its own.
enum class GeneratedTensor : std::uint64_t { kKvCache = 1, kQuery = 2, kWeights = 3 };

/// Fills `out` with elements [first, first + out.size()) of block `block` of a generated tensor:
/// 2^16 numbers spread evenly over [-1, 1) for queries and over [-1/4, 1/4) for the cache, whose
/// spread is then near that for which FlashMLA states its tolerances, rounded to `dtype` (bf16 or
/// fp16; the uppermost round to the end of the range), as bit patterns. For the cache a block is a
/// page; for queries it is a request's position in the batch. An element depends only on (seed,
/// tensor, block, its index), so any rank can make any part (core/random_stream.h).
void generate_elements(std::uint64_t seed, GeneratedTensor tensor, std::int64_t block,
                       std::int64_t first, DType dtype, std::span<std::uint16_t> out);

/// Fills `out` with elements [first, first + count) of the weights `tensor`, a number of your
/// choice, in the same way: 2^16 numbers spread evenly over [-bound, bound), rounded to `type`. For
/// fp8 `bound` does not count: 64 numbers of magnitude 1/8 to 15/8, evenly over their bit patterns,
/// with a mean square of 0.713.
void generate_weights(std::uint64_t seed, std::uint64_t tensor, std::int64_t first,
                      std::int64_t count, float bound, WeightType type, void* out);

}  // namespace mla
