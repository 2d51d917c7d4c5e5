#include "launch/decode_step.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "core/huge_pages.h"
#include "core/split_plan.h"
#include "dist/activity.h"
#include "dist/engine.h"
#include "dist/stopwatch.h"
#include "launch/rank_inputs.h"
#include "proto/shard_data.h"

namespace mla::launch {
StepVote vote_on_step(const DecodeContext& context, double last_seconds) {
  const double seconds_allowed = context.options.max_hours > 0
                                     ? context.options.max_hours * kSecondsPerHour
                                     : std::numeric_limits<double>::infinity();
  StepVote all{.stop = context.stop_request.has_come(),
               .last_seconds = last_seconds,
               .seconds_left = seconds_allowed - context.job_watch.seconds()};
  for (const StepVote& vote : context.comm.all_gather(all)) {
    all.stop = all.stop || vote.stop;
    all.last_seconds = std::max(all.last_seconds, vote.last_seconds);
    all.seconds_left = std::min(all.seconds_left, vote.seconds_left);
  }
  return all;
}

std::int64_t chunks_in(const Batch& batch, std::span<const Piece> pieces) {
  std::int64_t chunks = 0;
  for (const WorkItem& item : work_items(batch, pieces)) chunks += item.chunks.size();
  return chunks;
}

void add(const dist::DecodeStats& stats, RankMeasurements& measured) {
  measured.seconds.compute += stats.compute_seconds;
  measured.seconds.exchange += stats.combine.exchange_seconds + stats.combine.wait_seconds;
  measured.seconds.merge += stats.combine.merge_seconds;
  measured.partials_sent += stats.combine.partials_sent;
  measured.bytes_sent += stats.combine.bytes_sent;
}

Partition decode_step(const DecodeContext& context, std::span<const std::int64_t> requests,
                      JobJournals& journals, Progress& progress, RankMeasurements& measured) {
  const dist::Communicator& comm = context.comm;
  const Batch& batch = context.batch;
  dist::enter(dist::Phase::kPlan);
  Partition partition;
  measured.seconds.plan += timed([&] {
    partition = make_partition(batch, requests, context.mode, comm.size(), context.settings.cost);
  });
  const auto pieces = partition.pieces_of(comm.rank());

  dist::enter(dist::Phase::kData);
  std::optional<proto::ShardData> data;
  measured.seconds.data += timed([&] {
    comm.together([&] {
      data.emplace(batch, context.options.batch.parent_path(), pieces,
                   context.settings.compute.threads);
    });
  });

  const auto keep = [&](const std::vector<ResultSlice>& slices) {
    measured.seconds.write += timed([&] { journals.keep(slices); });
  };
  const dist::DecodeStats stats =
      dist::decode(comm, batch, partition, rank_inputs(*data, pieces), context.backend,
                   context.settings, keep, progress.count(chunks_in(batch, pieces)));
  add(stats, measured);
  measured.seconds.data += stats.prepare_seconds;
  measured.huge_page_bytes = std::max(measured.huge_page_bytes, huge_page_bytes());
  return partition;
}

double timed(const std::function<void()>& work) {
  const dist::Stopwatch watch;
  work();
  return watch.seconds();
}

}  // namespace mla::launch
