#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/decode_args.h"
#include "kernels/cuda/device_plan.h"

namespace mla::kernels::cuda {

/// Where the tables, the counters and the partials of a plan lie in one block of device memory, in
/// bytes from its begin. The parts are first; every array begins at a multiple of 256 bytes.
///
///   | parts | merges | shares | share offsets | counters | partials |
///   |<----- table_bytes(): uploaded once, counters zero ->|
///
/// Where a plan merges by mail, the partials are mailboxes: `mail_bytes`, zero before the first
/// run, as the counters are, and the runs' own from then on.
struct PlanMemory {
  std::int64_t merges = 0;
  std::int64_t shares = 0;
  std::int64_t share_offsets = 0;
  std::int64_t counters = 0;
  std::int64_t partials = 0;
  std::int64_t mail_bytes = 0;  ///< from `partials` on
  std::int64_t bytes = 0;

  std::int64_t table_bytes() const { return partials; }
};

/// A pure function of the plan's sizes.
PlanMemory lay_out(const DevicePlan& plan);

/// Writes what belongs to the first `memory.table_bytes()` bytes to `to`, in host memory.
void write_tables(const DevicePlan& plan, const PlanMemory& memory, std::byte* to);

/// Lets `args` point to the tables in the block at `device`, and be of the plan's kind.
void point_into(const DevicePlan& plan, const PlanMemory& memory, std::byte* device,
                DecodeArgs& args);

}  // namespace mla::kernels::cuda
