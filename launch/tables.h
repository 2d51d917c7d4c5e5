#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "core/batch.h"
#include "core/calibration.h"
#include "core/partition.h"
#include "dist/mode_trials.h"
#include "launch/decode_job.h"

namespace mla::launch {

/// "1.5 GiB", "640 B".
std::string bytes_text(std::int64_t bytes);

/// "6 requests, 2,743 tokens, 16 heads, bf16 576/512".
std::string batch_text(const Batch& batch);

/// Ranks, threads and cores, and a warning for each trap.
void print_placement(const Placement& placement, int threads_per_rank, std::string_view backend);

/// The GPU of each of the first ranks, and a warning for each trap; nothing without GPUs.
void print_gpus(const GpuPlacement& gpus);

/// What a partition means: balance, pieces and partials per request, bytes on the wire.
std::string balance_text(const Batch& batch, const std::vector<RankLoad>& loads);

/// How many of the requests earlier runs of a job that is resumed have finished.
void print_resumed(std::FILE* to, std::int64_t finished, std::int64_t requests);

/// What a start-up measurement found, what modes took that were tried, and what the job will take
/// if it is decoded in one step; nothing if the machine was not measured.
void print_prediction(const Calibration& machine, const std::vector<dist::ModeTrial>& trials,
                      const ShardMode& mode, const PredictedCost& seconds);

/// The closing lines of a decode.
void print_report(const Batch& batch, const DecodeReport& report);

}  // namespace mla::launch
