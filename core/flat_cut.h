#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"

namespace mla {

/// A place between chunks: before chunk `chunk` of request `request`; the end of all is before
/// chunk 0 of the request that would follow.
struct Place {
  std::int64_t request = 0;
  std::int64_t chunk = 0;

  friend auto operator<=>(const Place&, const Place&) = default;
};

/// Lays all chunks of all requests end to end and cuts them into `parts` runs: [parts + 1]. Each
/// cut is where the largest subtree of the canonical tree begins (the begin of a request being the
/// largest of all) that leaves no run more than 2 % above an even share, or, where chunks are too
/// few for that, more than the dearest run of any cut must cost.
///
///     14 chunks, 4 parts      | 0 1 2 3 | 4 5 6 7 | 8 9 10 11 | 12 13 |     one partial each
///
/// @param heads that a rank computes of each chunk
std::vector<Place> flat_cut(const Batch& batch, std::int64_t heads, std::int64_t parts,
                            const CostModel& cost);

}  // namespace mla
