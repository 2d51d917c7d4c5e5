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
/// about these lengths. The modes that the model, settings.cost, predicts to take at most 1.5 times
/// as long as the fastest take turns on made-up tensors, with the backend's kernels and the
/// settings' exchange; those that come to the same work on the same ranks are tried once. In order
/// of preference.
///
/// Nothing is tried where the model must do: a single mode is left, the machine is not measured,
/// or to try would cost more than 3 % of what all steps are predicted to take, or 0.15 s.
/// Collective; all ranks get the same. @throws CollectiveError if a rank cannot compute
std::vector<ModeTrial> try_modes(const Communicator& comm, const Batch& batch,
                                 const kernels::Backend& backend, const DecodeSettings& settings,
                                 std::int64_t steps);

/// The mode to take, of at least one: the first within 3 % of the fastest.
ShardMode fastest_mode(const std::vector<ModeTrial>& trials);

/// "kv 0.098 (0.100), grid:2x8 0.093 (0.128)": milliseconds predicted and, in brackets, measured.
std::string to_string(const std::vector<ModeTrial>& trials);

/// What each of `count` ways takes: the median over rounds of the slowest rank's seconds. In a
/// round each way has one turn, and each round begins with another one; the first warms up. There
/// are 5 more, and up to 50 until all have taken `enough_seconds`. `run(way)` takes a turn and
/// returns this rank's seconds. Collective; all ranks get the same.
std::vector<double> seconds_in_turn(const Communicator& comm, std::size_t count,
                                    double enough_seconds,
                                    const std::function<double(std::size_t)>& run);

}  // namespace mla::dist
