#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "dist/communicator.h"
#include "dist/engine.h"
#include "kernels/backend.h"

namespace mla::dist {

/// A mode that was tried, and what a step takes in it.
struct ModeTrial {
  ShardMode mode;
  double predicted_seconds = 0;
  double seconds = 0;  ///< median of the slowest rank's
};

/// Finds out by trying what mode auto should take for a batch that is decoded `steps` times at
/// about these lengths. Modes that the model, settings.cost, predicts to take at most 3 times as
/// long as the fastest take turns on made-up tensors, with the backend's kernels and the settings'
/// exchange; those that come to the same work on the same ranks are tried once. In order of
/// preference.
///
/// It may cost 3 % of what all steps are predicted to take, and 0.25 s, of which 0.03 s count for
/// preparing; what is predicted slow is left out before that is exceeded. Nothing is tried where
/// that leaves a single mode, or the machine was not measured: the model must do then.
/// Collective; all ranks get the same. @throws CollectiveError if a rank cannot compute
std::vector<ModeTrial> try_modes(const Communicator& comm, const Batch& batch,
                                 const kernels::Backend& backend, const DecodeSettings& settings,
                                 std::int64_t steps);

/// The mode to take, of at least one: the first within 3 % of the fastest.
ShardMode fastest_mode(const std::vector<ModeTrial>& trials);

/// "kv 0.098 (0.100), grid:2x8 0.093 (0.128)": milliseconds predicted and, in brackets, measured.
std::string to_string(const std::vector<ModeTrial>& trials);

/// What each of `count` ways takes in a job that goes that way alone: the median over rounds of the
/// slowest rank's seconds. In a round each way has a turn of two runs, of which the second counts,
/// as the first finds the caches full of what the others left; each round begins with another way.
/// There are 5 rounds, and up to 50 until all have taken `enough_seconds`. `run(way)` runs once and
/// returns this rank's seconds. Collective; all ranks get the same.
std::vector<double> seconds_in_turn(const Communicator& comm, std::size_t count,
                                    double enough_seconds,
                                    const std::function<double(std::size_t)>& run);

}  // namespace mla::dist
