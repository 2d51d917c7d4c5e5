#include "launch/tables.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "core/build_info.h"

namespace mla::launch {
namespace {

std::string seconds_text(const PredictedCost& s) {
  return fmt::format("{:.3f} s (cache {:.3f}, compute {:.3f}, exchange and merge {:.3f})",
                     s.total(), s.load, s.compute, s.exchange);
}

/// Milliseconds of the steps of a growing batch; nothing without --steps.
void print_growth(const GrowthReport& growth) {
  if (growth.seconds.empty()) return;
  const StepSeconds& first = growth.seconds.front();
  std::vector<std::string> texts;
  for (const auto& [name, phase] : kStepPhases) {
    texts.push_back(
        fmt::format("{} {:.3f} ({:.3f})", name, growth.median.*phase * 1e3, first.*phase * 1e3));
  }
  fmt::print("steps    ms, median (first): {}; planned {} time(s)\n", fmt::join(texts, ", "),
             growth.planned_steps.size());
  if (growth.predicted.total() == 0) return;
  fmt::print("predict  ms, median: compute {:.3f}, exchange and merge {:.3f}\n",
             growth.predicted.compute * 1e3, growth.predicted.exchange * 1e3);
}

}  // namespace

std::string bytes_text(std::int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string batch_text(const Batch& batch) {
  std::int64_t tokens = 0;
  for (const Request& request : batch.requests) tokens += request.context_len;
  return fmt::format("{} requests, {} cached tokens, {} heads, {} {}/{}, pages of {}",
                     batch.requests.size(), tokens, batch.shape.h_q, name_of(batch.dtype),
                     batch.shape.d_qk, batch.shape.d_v, batch.page_block_size);
}

void print_placement(const Placement& placement, int threads_per_rank, std::string_view backend) {
  const std::string numa =
      placement.numa_nodes > 0 ? fmt::format(" ({} NUMA domain(s))", placement.numa_nodes) : "";
  fmt::print("meshmla {}: {} rank(s) x {} thread(s) on {} {}(s) of {} node(s){}, backend {}\n",
             version(), placement.ranks, threads_per_rank, placement.cores,
             placement.knows_cores ? "core" : "logical CPU", placement.nodes, numa, backend);
  for (const std::string& warning : placement.warnings) spdlog::warn("{}", warning);
}

void print_gpus(const GpuPlacement& gpus) {
  constexpr std::size_t kShown = 16;
  for (std::size_t i = 0; i < std::min(kShown, gpus.ranks.size()); ++i) {
    fmt::print("gpu      {}\n", gpus.ranks[i]);
  }
  if (gpus.ranks.size() > kShown) {
    fmt::print("gpu      ... {} more ranks (all are in the manifest)\n",
               gpus.ranks.size() - kShown);
  }
  for (const std::string& warning : gpus.warnings) spdlog::warn("{}", warning);
}

std::string balance_text(const Batch& batch, const std::vector<RankLoad>& loads) {
  double most = 0;
  double sum = 0;
  std::int64_t pieces = 0;
  std::int64_t partials = 0;
  std::int64_t bytes = 0;
  for (const RankLoad& load : loads) {
    most = std::max(most, load.cost);
    sum += load.cost;
    pieces += load.pieces;
    partials += load.partials_sent;
    bytes += load.bytes_sent;
  }
  const auto requests = static_cast<double>(batch.requests.size());
  const double mean = sum / static_cast<double>(loads.size());
  return fmt::format(
      "load max/mean {:.3f}; per request {:.2f} pieces; on the wire {} partials ({:.2f} per "
      "request), {}",
      mean > 0 ? most / mean : 1, static_cast<double>(pieces) / requests, partials,
      static_cast<double>(partials) / requests, bytes_text(bytes));
}

void print_resumed(std::FILE* to, std::int64_t finished, std::int64_t requests) {
  fmt::print(to, "resume   {} of {} requests are done\n", finished, requests);
}

void print_prediction(const Calibration& machine, const std::vector<dist::ModeTrial>& trials,
                      const ShardMode& mode, const PredictedCost& seconds) {
  if (machine.flop_per_second == 0) return;
  fmt::print("machine  {:.1f} GFLOP/s a rank, cache {:.1f} GB/s", machine.flop_per_second / 1e9,
             1e-9 / machine.seconds_per_loaded_byte);
  const auto print_way = [](const char* where, const WaySeconds& way) {
    if (way.per_message == 0 && way.per_byte == 0) return;  // not measured
    fmt::print(", messages {} {:.1f} us + {:.0f} ns/KiB", where, way.per_message * 1e6,
               way.per_byte * 1024e9);
  };
  print_way("on a node", machine.near);
  print_way("between nodes", machine.far);
  fmt::print("\n");
  if (!trials.empty()) {
    fmt::print("tried    ms a step, predicted (measured): {}\n", dist::to_string(trials));
  }
  fmt::print("predict  {} in mode {}\n", seconds_text(seconds), to_string(mode));
}

void print_report(const Batch& batch, const DecodeReport& report) {
  const PhaseSeconds& s = report.slowest;
  fmt::print("batch    {}\n", batch_text(batch));
  fmt::print("plan     {} step(s), mode {}: {}\n", report.steps, report.mode,
             balance_text(batch, report.loads));
  std::vector<std::string> phases;
  for (const auto& [name, phase] : kPhases) {
    phases.push_back(fmt::format("{} {:.3f}", name, s.*phase));
  }
  fmt::print("seconds  {}\n", fmt::join(phases, ", "));
  if (report.predicted_seconds.total() > 0) {
    const PredictedCost took{
        .load = s.data, .compute = s.compute, .exchange = s.exchange + s.merge};
    fmt::print("predict  {}; took {}\n", seconds_text(report.predicted_seconds),
               seconds_text(took));
  }
  print_growth(report.growth);
  fmt::print(
      "measured compute max/mean {:.3f}, {:.1f} GFLOP/s over all ranks, peak memory {} a "
      "rank\n",
      report.compute_max_over_mean, s.compute > 0 ? report.flop / s.compute / 1e9 : 0,
      bytes_text(report.peak_rss_bytes));
  if (report.failed_requests > 0) {
    fmt::print("failed   {} request(s), recorded in the output\n", report.failed_requests);
  }
}

}  // namespace mla::launch
