#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "dist/communicator.h"
#include "dist/engine.h"
#include "kernels/backend.h"
#include "launch/affinity.h"
#include "launch/gpus.h"
#include "proto/result_file.h"

namespace mla::launch {

/// What `meshmla decode` was asked for.
struct DecodeOptions {
  std::filesystem::path batch;
  std::filesystem::path output;
  std::string mode = "auto";
  std::string backend = "auto";
  std::string format;  ///< "stream", "safetensors", or empty: by the output's extension
  std::string combine = "exact";
  std::string exchange = "auto";
  double timeout_seconds = 300;  ///< without progress on any rank; 0: no limit
  int threads = 0;               ///< per rank; 0: as `choose_threads` says
  bool resume = false;           ///< go on from the journals of earlier runs
  bool restart = false;          ///< discard them
  std::int64_t steps = 1;        ///< decode the batch so often, as it grows
  double max_hours = 0;          ///< stop in time to take no longer; 0: no limit
  double step_seconds = 2;       ///< about how often the job can stop
  bool keep_going = false;
  bool quiet = false;
};

/// A batch as all ranks hold it, and why some requests of it cannot run.
struct LoadedBatch {
  Batch batch;
  std::map<std::int64_t, std::string> failed;  ///< by position; known to rank 0 only
};

/// Rank 0 reads and checks the batch and broadcasts it. With `keep_going`, a request that is wrong
/// in itself is emptied and recorded in `failed` instead of failing the job. Collective.
LoadedBatch load_batch(const dist::Communicator& comm, const std::filesystem::path& path,
                       bool keep_going);

/// Seconds that each phase took; over ranks, the slowest one's.
struct PhaseSeconds {
  double load = 0;
  double calibrate = 0;
  double plan = 0;
  double data = 0;  ///< reading or making tensors, copying them to a GPU, plans for kernels
  double compute = 0;
  double exchange = 0;
  double merge = 0;
  double write = 0;
};

/// Seconds of one step of a growing batch; over ranks, the slowest one's.
struct StepSeconds {
  double step = 0;  ///< from its begin to its end
  double plan = 0;  ///< following the growth: plans for ranks, threads and GPUs
  double compute = 0;
  double exchange = 0;  ///< packing, sending, checking
  double wait = 0;      ///< for other ranks
  double merge = 0;
};

/// What reports call a phase, and where its seconds are.
template <class Seconds>
struct PhaseName {
  const char* name;
  double Seconds::*seconds;
};
inline constexpr PhaseName<PhaseSeconds> kPhases[] = {
    {"load", &PhaseSeconds::load},       {"calibrate", &PhaseSeconds::calibrate},
    {"plan", &PhaseSeconds::plan},       {"data", &PhaseSeconds::data},
    {"compute", &PhaseSeconds::compute}, {"exchange", &PhaseSeconds::exchange},
    {"merge", &PhaseSeconds::merge},     {"write", &PhaseSeconds::write}};
inline constexpr PhaseName<StepSeconds> kStepPhases[] = {
    {"step", &StepSeconds::step},       {"plan", &StepSeconds::plan},
    {"compute", &StepSeconds::compute}, {"exchange", &StepSeconds::exchange},
    {"wait", &StepSeconds::wait},       {"merge", &StepSeconds::merge}};

/// What `--steps` measured.
struct GrowthReport {
  std::vector<std::int64_t> planned_steps;  ///< those with a partition of their own, 0 first
  std::vector<StepSeconds> seconds;         ///< [steps], or none without --steps
  StepSeconds median;                       ///< over steps, of each phase by itself
  PredictedCost predicted;  ///< seconds of the median step; 0 where the machine was not measured
};

/// What a finished job says of itself.
struct DecodeReport {
  PhaseSeconds slowest;
  std::string mode;                  ///< of all steps
  PredictedCost predicted_seconds;   ///< sums over steps; 0 where the machine was not measured
  std::int64_t steps = 0;            ///< that the requests were decoded in
  double flop = 0;                   ///< of the requests that this run decoded
  std::vector<RankLoad> loads;       ///< sums over steps
  double compute_max_over_mean = 1;  ///< measured seconds
  std::int64_t peak_rss_bytes = 0;   ///< largest over ranks
  std::int64_t huge_page_bytes = 0;  ///< of all ranks' memory on huge pages, cache and workspaces
  std::int64_t partials_sent = 0;    ///< of all ranks
  std::int64_t bytes_sent = 0;
  std::int64_t failed_requests = 0;
  GrowthReport growth;
};

/// The whole of `meshmla decode`. Collective.
ExitCode run_decode(const dist::Communicator& comm, const DecodeOptions& options);

/// Writes `<output>.manifest.json`: version, machine, settings, hashes, phases. On rank 0 only.
void write_manifest(const DecodeOptions& options, const Batch& batch, const Placement& placement,
                    const GpuPlacement& gpus, const kernels::Backend& backend,
                    const DecodeReport& report);

}  // namespace mla::launch
