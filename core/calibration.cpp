#include "core/calibration.h"

#include <algorithm>

namespace mla {

CostModel calibrated_model(const Calibration& calibration) {
  CostModel cost;
  const double rate = calibration.flop_per_second;
  if (rate <= 0) return cost;
  cost.flop_per_second = rate;
  const auto set = [rate](double seconds, double& flop) {
    if (seconds > 0) flop = seconds * rate;
  };
  set(calibration.seconds_per_kv_byte, cost.flop_per_kv_byte);
  cost.padded_values = calibration.padded_values;
  set(calibration.seconds_per_loaded_byte, cost.flop_per_loaded_byte);
  set(calibration.near.per_byte, cost.flop_per_wire_byte);
  set(calibration.near.per_message, cost.flop_per_message);
  cost.ranks_per_node = calibration.ranks_per_node;
  cost.flop_per_far_byte = std::max(cost.flop_per_wire_byte, calibration.far.per_byte * rate);
  cost.flop_per_far_message = std::max(cost.flop_per_message, calibration.far.per_message * rate);
  return cost;
}

}  // namespace mla
