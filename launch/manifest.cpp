#include <filesystem>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/build_info.h"
#include "launch/decode_job.h"
#include "launch/machine.h"
#include "proto/batch_file.h"
#include "proto/file_io.h"

namespace mla::launch {
namespace {

template <class Seconds, std::size_t kCount>
nlohmann::ordered_json json_of(const PhaseName<Seconds> (&phases)[kCount], const Seconds& seconds) {
  nlohmann::ordered_json json;
  for (const auto& [name, phase] : phases) json[name] = seconds.*phase;
  return json;
}

/// What --steps measured; null without.
nlohmann::ordered_json json_of(const GrowthReport& growth) {
  if (growth.seconds.empty()) return nullptr;
  nlohmann::ordered_json steps;
  for (const StepSeconds& step : growth.seconds) steps.push_back(json_of(kStepPhases, step));
  return {
      {"planned_steps", growth.planned_steps},
      {"median_seconds", json_of(kStepPhases, growth.median)},
      {"predicted_median_seconds",
       {{"compute", growth.predicted.compute}, {"exchange_and_merge", growth.predicted.exchange}}},
      {"seconds", steps}};
}

}  // namespace

void write_manifest(const DecodeOptions& options, const Batch& batch, const Placement& placement,
                    const GpuPlacement& gpus, const kernels::Backend& backend,
                    const DecodeReport& report) {
  std::int64_t pieces = 0;
  for (const RankLoad& load : report.loads) pieces += load.pieces;
  const nlohmann::ordered_json manifest = {
      {"meshmla", build_summary()},
      {"mpi", dist::mpi_version()},
      {"host", host_name()},
      {"cpu", cpu_model()},
      {"ranks", placement.ranks},
      {"nodes", placement.nodes},
      {"threads", placement.threads},
      {"cores", placement.cores},
      {"numa_domains", placement.numa_nodes},
      {"affinity_warnings", placement.warnings},
      {"gpus", gpus.ranks},
      {"batch", options.batch.string()},
      {"input_hash",
       fmt::format("{:016x}", proto::hash_of_input(batch, options.batch.parent_path()))},
      {"kv_seed", batch.kv_cache.kind == TensorSource::Kind::kGenerated
                      ? nlohmann::ordered_json(batch.kv_cache.seed)
                      : nlohmann::ordered_json(nullptr)},
      {"requests", batch.requests.size()},
      {"failed_requests", report.failed_requests},
      {"backend", backend.name()},
      {"combine", options.combine},
      {"mode", report.mode},
      {"resumed", options.resume},
      {"steps", report.steps},
      {"growth", json_of(report.growth)},
      {"exchange", options.exchange},
      {"pieces", pieces},
      {"partials_sent", report.partials_sent},
      {"bytes_sent", report.bytes_sent},
      {"compute_max_over_mean", report.compute_max_over_mean},
      {"peak_rss_bytes", report.peak_rss_bytes},
      {"huge_page_bytes", report.huge_page_bytes},
      {"predicted_seconds",
       {{"data", report.predicted_seconds.load},
        {"compute", report.predicted_seconds.compute},
        {"exchange_and_merge", report.predicted_seconds.exchange}}},
      {"seconds", json_of(kPhases, report.slowest)}};
  std::filesystem::path path = options.output;
  path += ".manifest.json";
  proto::AtomicFile file(path);
  file.write(manifest.dump(2) + "\n");
  file.commit();
}

}  // namespace mla::launch
