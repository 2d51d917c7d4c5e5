#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/batch.h"
#include "core/partition.h"
#include "dist/communicator.h"
#include "dist/engine.h"
#include "dist/stopwatch.h"
#include "kernels/backend.h"
#include "launch/decode_job.h"
#include "launch/job_journals.h"
#include "launch/progress.h"
#include "launch/stop_request.h"

namespace mla::launch {

/// What all steps of a decode share. Nothing is owned.
struct DecodeContext {
  const dist::Communicator& comm;
  const DecodeOptions& options;
  const Batch& batch;
  const kernels::Backend& backend;
  ShardMode mode;
  dist::DecodeSettings settings;
  const StopRequest& stop_request;
  const dist::Stopwatch& job_watch;  ///< since the start
  bool talks = false;                ///< whether this rank reports progress
};

/// What one rank measured, over all steps.
struct RankMeasurements {
  PhaseSeconds seconds;
  std::int64_t peak_rss_bytes = 0;
  std::int64_t huge_page_bytes = 0;  ///< the most that any step had
  std::int64_t partials_sent = 0;
  std::int64_t bytes_sent = 0;
};

/// What decides on the next step; the same on all ranks once they have agreed.
struct StepVote {
  bool stop = false;        ///< any rank was asked to
  double last_seconds = 0;  ///< of the last step, on the slowest rank
  double seconds_left = 0;  ///< the least of any rank
};

/// `last_seconds` is what this rank took for the last step. Collective.
StepVote vote_on_step(const DecodeContext& context, double last_seconds);

/// Decodes `requests`: deals them out to the ranks, reads their tensors, computes, and hands what
/// this rank owns to `journals`. Returns how they were dealt out. Collective.
Partition decode_step(const DecodeContext& context, std::span<const std::int64_t> requests,
                      JobJournals& journals, Progress& progress, RankMeasurements& measured);

/// Adds what a decode took.
void add(const dist::DecodeStats& stats, RankMeasurements& measured);

/// Of all items of `pieces`.
std::int64_t chunks_in(const Batch& batch, std::span<const Piece> pieces);

/// Runs `work` and returns the seconds it took.
double timed(const std::function<void()>& work);

}  // namespace mla::launch
