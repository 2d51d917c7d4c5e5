#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/aligned_buffer.h"
#include "kernels/backend.h"

namespace mla::test {

/// A token as an input sees it.
struct InputToken {
  std::int64_t position = 0;
  std::int64_t context_len = 0;
  double uniform = 0;  ///< in (0, 1), random, the token's own
};

/// A family of problems: random keys and queries, and a score of our choosing on top.
struct InputKind {
  std::string_view name;
  /// Queries are spread evenly over [-1, 1) times this, keys over [-1/4, 1/4), so that at 1 random
  /// scores have a standard deviation of 1/12.
  float q_magnitude;
  float value_mean;                    ///< added to every element of a cache row
  double (*score)(const InputToken&);  ///< natural units, added to the random score; row r gets
                                       ///< (16 - r) / 16 of it
  double (*row_factor)(const InputToken&);  ///< of the whole cache row
};

/// All of them; docs/numerics.md says what each is for.
const std::vector<InputKind>& input_kinds();

/// The kind called `name`.
/// @throws InvalidArgument that lists what there is.
const InputKind& find_input_kind(std::string_view name);

/// One query token of `shape.h_q` heads (at most 4) and a cache of `context_len` tokens of which no
/// two are alike: repeated ones would round alike. Pure function of the arguments. The chosen score
/// enters through the first three elements after V, as three numbers of the cache's type whose sum
/// is exact to fp32, so it does not touch the values. Needs d_qk >= d_v + 3 and h_kv == 1.
class Input {
 public:
  Input(const InputKind& kind, const MlaShape& shape, DType dtype, std::int64_t context_len,
        std::uint64_t seed);

  /// Points into this object.
  kernels::DecodeParams params(std::int64_t chunk_tokens = kDefaultChunkTokens) const;

 private:
  void fill_queries(const InputKind& kind, std::uint64_t seed);
  void fill_token(const InputKind& kind, std::uint64_t seed, std::int64_t token);

  MlaShape shape_;
  DType dtype_;
  std::int64_t context_len_;
  std::vector<std::uint16_t> q_;
  std::vector<std::int32_t> block_table_;
  AlignedBuffer<std::uint16_t> kv_;
};

}  // namespace mla::test
