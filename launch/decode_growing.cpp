#include "launch/decode_growing.h"

#include <optional>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "core/growing_plan.h"
#include "core/huge_pages.h"
#include "dist/activity.h"
#include "dist/engine.h"
#include "dist/stopwatch.h"
#include "launch/decode_report.h"
#include "launch/progress.h"
#include "launch/rank_inputs.h"
#include "launch/step_plan.h"
#include "proto/shard_data.h"

namespace mla::launch {
namespace {

/// What one rank keeps for all steps.
class GrowingDecode {
 public:
  GrowingDecode(const DecodeContext& context, const GrowingPlan& plan)
      : context_(context),
        held_(held_pieces(context.batch, plan, context.comm.rank())),
        data_(load(context, held_)),
        steps_(context.batch, plan),
        decoder_(context.comm, steps_.sizes(), steps_.partition(),
                 {held_, rank_inputs(data_, held_)}, context.backend, context.settings) {}

  StepSeconds step(const dist::OnResults& on_results, Progress& progress) {
    const dist::Stopwatch watch;
    dist::enter(dist::Phase::kPlan);
    if (steps_.advance() == GrowingSteps::Change::kNone) {
      decoder_.follow_lengths();
    } else {
      decoder_.follow_partition();
    }
    const double plan_seconds = watch.seconds();
    const auto pieces = steps_.partition().pieces_of(context_.comm.rank());
    stats_ = decoder_.run(on_results, progress.count(chunks_in(steps_.sizes(), pieces)));
    return {.step = watch.seconds(),
            .plan = plan_seconds,
            .compute = stats_.compute_seconds,
            .exchange = stats_.combine.exchange_seconds,
            .wait = stats_.combine.wait_seconds,
            .merge = stats_.combine.merge_seconds};
  }

  /// Of the last step; of none before the first.
  const dist::DecodeStats& stats() const { return stats_; }

 private:
  static proto::ShardData load(const DecodeContext& context, std::span<const Piece> pieces) {
    std::optional<proto::ShardData> data;
    context.comm.together([&] {
      data.emplace(context.batch, context.options.batch.parent_path(), pieces,
                   context.settings.compute.threads);
    });
    return std::move(*data);
  }

  const DecodeContext& context_;
  std::vector<Piece> held_;
  proto::ShardData data_;
  GrowingSteps steps_;
  dist::Decoder decoder_;
  dist::DecodeStats stats_;
};

/// Decodes steps until the last is done or all ranks agree to stop. Collective.
std::vector<StepSeconds> decode_all(const DecodeContext& context, const GrowingPlan& plan,
                                    GrowingDecode& decode, JobJournals& journals,
                                    RankMeasurements& measured) {
  const dist::OnResults drop = [](const std::vector<ResultSlice>&) {};
  const dist::OnResults keep = [&](const std::vector<ResultSlice>& slices) {
    measured.seconds.write += timed([&] { journals.keep(slices); });
  };
  Progress progress(context.talks);
  std::vector<StepSeconds> seconds;
  const auto num_steps = static_cast<double>(plan.growth.steps);
  while (std::ssize(seconds) < plan.growth.steps) {
    const StepVote vote = vote_on_step(context, seconds.empty() ? 0 : seconds.back().step);
    if (vote.stop || vote.last_seconds * kSpareTime > vote.seconds_left) break;
    progress.begin_step(static_cast<double>(seconds.size()) / num_steps, 1 / num_steps);
    const bool is_last = std::ssize(seconds) + 1 == plan.growth.steps;
    seconds.push_back(decode.step(is_last ? keep : drop, progress));
    add(decode.stats(), measured);
    measured.seconds.plan += seconds.back().plan;
  }
  return seconds;
}

}  // namespace

bool decode_growing(const DecodeContext& context, std::span<const std::int64_t> requests,
                    JobJournals& journals, RankMeasurements& measured, DecodeReport& report) {
  if (requests.empty()) return true;
  dist::enter(dist::Phase::kPlan);
  GrowingPlan plan;
  measured.seconds.plan += timed([&] {
    plan = make_growing_plan(context.batch, requests, {context.options.steps}, context.mode,
                             context.comm.size(), context.settings.cost);
  });
  dist::enter(dist::Phase::kData);
  const dist::Stopwatch data_watch;
  GrowingDecode decode(context, plan);
  measured.seconds.data += data_watch.seconds();
  const std::vector<StepSeconds> mine = decode_all(context, plan, decode, journals, measured);
  measured.huge_page_bytes = huge_page_bytes();
  journals.check();
  const std::vector<StepSeconds> slowest = slowest_of_ranks(context.comm, mine);
  const bool is_done = std::ssize(mine) == plan.growth.steps;
  if (context.comm.rank() != 0) return is_done;
  if (is_done) {
    report_growth(context, plan, slowest, report);
  } else {
    spdlog::warn(
        "stopped after {} of {} steps; results are those of the last one, so --resume begins with "
        "the first",
        mine.size(), plan.growth.steps);
  }
  return is_done;
}

}  // namespace mla::launch
