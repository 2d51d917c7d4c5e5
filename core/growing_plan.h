#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/partition.h"

namespace mla {

/// A batch that is decoded again and again as its requests grow: in every step each has `query_len`
/// cached tokens more than in the one before. The last step is the batch as it stands; a step
/// before sees the first tokens of the same pages. Requests without keys stay without.
struct Growth {
  std::int64_t steps = 1;

  /// Cached tokens of `request` in step `step`.
  std::int64_t context_len(const Request& request, std::int64_t step) const {
    if (request.context_len == 0) return 0;
    return request.context_len - (steps - 1 - step) * request.query_len;
  }
};

/// Whether every request has keys in the first step.
/// @throws InvalidArgument naming `option` and the most steps that `batch` allows for
void check_growth(const Batch& batch, Growth growth, std::string_view option);

/// Gives the requests of `sizes` the lengths that those of `batch` have in step `step`.
void set_lengths(const Batch& batch, Growth growth, std::int64_t step, Batch& sizes);

/// Gives chunks that requests of `sizes` have and `partition` lacks to the rank that has the
/// request's last ones. Owners stay. Returns whether there were any.
bool extend(const Batch& sizes, Partition& partition);

/// What a rank's load may exceed the ideal by before another partition is tried, and that one's
/// before it is taken.
inline constexpr double kMaxDrift = 1.03;

/// Which partition each step works with. A partition is kept, and extended to the chunks that come,
/// while its slowest rank is predicted to take at most kMaxDrift times as long as the mean of its
/// ranks or as the slowest of a new one. A pure function of sizes.
struct GrowingPlan {
  /// A partition, as it is in its first step.
  struct Made {
    std::int64_t first_step = 0;
    Partition partition;
  };
  Growth growth;
  std::vector<Made> made;  ///< the first one for step 0
};

/// Plans the requests `requests` of `batch`, given in ascending order.
GrowingPlan make_growing_plan(const Batch& batch, std::span<const std::int64_t> requests,
                              Growth growth, ShardMode mode, int ranks, const CostModel& cost = {});

/// Walks through the steps of a plan. It starts at the last one, the batch as it stands, so that
/// what is made there is large enough for all. The arguments must outlive it.
class GrowingSteps {
 public:
  enum class Change : std::uint8_t {
    kNone,      ///< the same chunks as in the step before; the last ones hold more tokens
    kExtended,  ///< some ranks have further chunks
    kNew,       ///< another partition, as in the first step
  };

  GrowingSteps(const Batch& batch, const GrowingPlan& plan);

  /// Goes to the next step; the first time to step 0.
  Change advance();

  /// Sizes of this step; the object stays the same.
  const Batch& sizes() const { return sizes_; }
  /// Of this step; the object stays the same.
  const Partition& partition() const { return partition_; }

 private:
  const Batch& batch_;
  const GrowingPlan& plan_;
  std::int64_t step_ = -1;
  std::size_t next_made_ = 0;
  Batch sizes_;
  Partition partition_;
};

/// What a rank has of each request and heads in any step, from the first chunk to the last: what it
/// needs tensors of. By request, then by heads.
std::vector<Piece> held_pieces(const Batch& batch, const GrowingPlan& plan, int rank);

/// For each of `pieces`, which of `held` has its request, heads and chunks; one must.
std::vector<std::size_t> places_in(std::span<const Piece> held, std::span<const Piece> pieces);

}  // namespace mla
