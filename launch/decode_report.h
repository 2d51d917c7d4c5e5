#pragma once

#include <vector>

#include "core/growing_plan.h"
#include "core/partition.h"
#include "dist/communicator.h"
#include "launch/decode_job.h"
#include "launch/decode_step.h"

namespace mla::launch {

/// What `loads` will take on the slowest rank; 0 if the machine was not measured.
PredictedCost predicted_seconds(const Batch& batch, const std::vector<RankLoad>& loads,
                                const CostModel& cost);

/// Fills in what all ranks measured. Collective.
void gather_measurements(const dist::Communicator& comm, const RankMeasurements& mine,
                         DecodeReport& report);

/// Fills in what the partitions of a job's steps, each of other requests, meant.
void report_steps(const Batch& batch, const std::vector<Partition>& steps, int ranks,
                  const CostModel& cost, DecodeReport& report);

/// Of each step and phase, the seconds of the rank that took longest. Collective; all ranks have as
/// many steps.
std::vector<StepSeconds> slowest_of_ranks(const dist::Communicator& comm,
                                          const std::vector<StepSeconds>& mine);

/// Fills in what the steps of a growing batch were planned and measured to be.
void report_growth(const DecodeContext& context, const GrowingPlan& plan,
                   const std::vector<StepSeconds>& slowest, DecodeReport& report);

}  // namespace mla::launch
