#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"

namespace mla::dist {

/// A SwiGLU MLP whose rows the ranks of a group share: the dense ones and the shared experts.
///
///   x (all) -> gate, up: own rows -> gather -> down: own rows -> out
class SharedMlp {
 public:
  /// For MLPs of at most `max_intermediate`. Collective over the group.
  SharedMlp(const RankContext& context, std::int64_t max_intermediate);

  /// This rank's columns of the MLP of `tokens` rows of x [tokens, hidden] into `out`. Collective
  /// over the group.
  void run(const MlpWeights& weights, std::int64_t tokens, const float* x, ColumnGather& out);

 private:
  const RankContext& context_;
  std::vector<ColumnGather>;
};

}  // namespace mla::dist
