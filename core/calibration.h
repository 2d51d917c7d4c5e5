#pragma once

#include "core/cost_model.h"

namespace mla {

/// What a message from one rank to another takes: packed, sent, checked and merged.
struct WaySeconds {
  double per_message = 0;
  double per_byte = 0;
};

/// What was measured of the machine that a job runs on; the same on all ranks. 0 is unknown.
struct Calibration {
  double flop_per_second = 0;          ///< of one whole rank, for what query rows add to a chunk
  double seconds_per_kv_byte = 0;      ///< what a byte of cache adds, once for all rows
  double padded_values = 0;            ///< as in CostModel
  double seconds_per_loaded_byte = 0;  ///< of cache that one whole rank reads or generates
  WaySeconds near;                     ///< between ranks of one node
  WaySeconds far;                      ///< between nodes
  int ranks_per_node = 0;              ///< runs of so many ranks share a node; 0: all of them do
};

/// The model of a machine; what the calibration does not know is as in a default one.
CostModel calibrated_model(const Calibration& calibration);

}  // namespace mla
