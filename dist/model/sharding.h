#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model_config.h"
#include "core/model_weights.h"
#include "core/range.h"

namespace mla::dist {

/// How a model is spread over the ranks of a job: equal groups of neighbouring ranks. A sequence
/// lives in one group. The ranks of a group share every layer: each has some of the heads and, of
/// every other matrix, some of the rows; all have the group's whole cache.
///
///   one group ("heads")        every rank works on every token: the least time for a step
///   groups of one ("requests") a rank keeps its sequences' cache to itself, as data-parallel
///                              attention does: the most room for caches, the fewest messages
///   one group ("kv")           as "heads", but each rank has one run of the tokens of every
///                              sequence and attends to it with all heads: for long contexts
///
/// With one group, experts too are cut by rows. With several, an expert lies wholly on one rank of
/// the job, and tokens of all groups come to it. The head is cut over all ranks by vocabulary.
struct ModelSharding {
  int ranks = 1;
  int group_size = 1;  ///< a divisor of `ranks`
  /// Tokens, whole chunks, of a rank's run of a sequence; 0: every rank of a group has all of it.
  std::int64_t cache_run = 0;
  /// Where the cache is split: partials meet as ProjectedPartials says, not along the canonical
  /// tree.
  bool fast_combine = false;

  int groups() const { return ranks / group_size; }
  int group_of(int rank) const { return rank / group_size; }
  int rank_in_group(int rank) const { return rank % group_size; }
  bool splits_cache() const { return cache_run > 0; }
  /// The rank within its group whose pages hold `position`, where the cache is split.
  int cache_rank(std::int64_t position) const {
    return static_cast<int>(std::min<std::int64_t>(position / cache_run, group_size - 1));
  }

  /// Which of the first `context` positions of a sequence lie in pages of this rank of the group.
  Range cache_positions(int rank, std::int64_t context) const {
    if (!splits_cache()) return {0, context};
    const bool is_last = rank + 1 == group_size;
    return {std::min(rank * cache_run, context),
            is_last ? context : std::min((rank + 1) * cache_run, context)};
  }

  friend bool operator==(const ModelSharding&, const ModelSharding&) = default;
};

/// "heads", "kv", "requests" or "groups:G".
/// @param longest_context tokens, which "kv" cuts into even runs; one rank has nothing to cut
/// @throws InvalidArgument for anything else, and for a G that does not divide `ranks`.
ModelSharding parse_model_sharding(std::string_view text, int ranks, std::int64_t longest_context);
std::string to_string(const ModelSharding& sharding);

/// The part of `size` things that rank `rank` has in its group.
inline Range group_part(const ModelSharding& sharding, int rank, std::int64_t size) {
  return even_part(size, sharding.group_size, sharding.rank_in_group(rank));
}

/// The experts that lie on `rank`, where there are several groups.
inline Range experts_of(const ModelSharding& sharding, int rank, std::int64_t num_experts) {
  return even_part(num_experts, sharding.ranks, rank);
}

/// The rows of kv_b that are W_UK of a head, and those that are W_UV.
inline Range key_rows(const AttentionConfig& config, std::int64_t head) {
  const std::int64_t begin = head * kv_b_head_dim(config);
  return {begin, begin + config.qk_nope_head_dim};
}
inline Range value_rows(const AttentionConfig& config, std::int64_t head) {
  return {key_rows(config, head).end, (head + 1) * kv_b_head_dim(config)};
}

/// Rows of a matrix that a rank reads.
struct UsedRows {
  MatrixView matrix;
  Range rows;
};

/// All that `rank` reads of the weights but the embedding, of which it reads the rows of the tokens
/// that occur.
std::vector<UsedRows> used_rows(const ModelConfig& config, const ModelWeights& weights,
                                const ModelSharding& sharding, int rank);

/// The rows [0, rows) of a matrix that are among `own` of a concatenation in which row 0 is
/// `first`.
inline Range rows_within(Range own, std::int64_t first, std::int64_t rows) {
  return {std::clamp<std::int64_t>(own.begin - first, 0, rows),
          std::clamp<std::int64_t>(own.end - first, 0, rows)};
}

}  // namespace mla::dist
