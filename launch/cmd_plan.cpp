#include <memory>
#include <vector>

#include <fmt/format.h>

#include "core/partition.h"
#include "core/split_plan.h"
#include "kernels/backend.h"
#include "kernels/local_decode.h"
#include "launch/command.h"
#include "launch/plan_model.h"
#include "launch/tables.h"
#include "proto/batch_file.h"

namespace mla::launch {
namespace {

struct PlanOptions {
  std::filesystem::path batch;
  int ranks = 1;
  int threads = 1;
  std::string mode = "auto";
  std::string backend = "auto";
  bool pieces = false;
};

void print_ranks(const Batch& batch, const Partition& partition, const std::vector<RankLoad>& loads,
                 const PlanOptions& options) {
  const kernels::HostBackend& backend = kernels::find_host_backend(options.backend);
  double sum = 0;
  for (const RankLoad& load : loads) sum += load.cost;
  const double mean = sum / static_cast<double>(loads.size());
  fmt::print("{:>5} {:>6} {:>7} {:>7} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10} {:>6}\n", "rank",
             "load", "pieces", "pages", "cache", "q + out", "workspace", "memory", "partials",
             "sent", "peers");
  for (std::size_t rank = 0; rank < loads.size(); ++rank) {
    const RankLoad& load = loads[rank];
    const SplitPlan plan =
        make_split_plan(batch, partition.pieces_of(static_cast<int>(rank)), options.threads);
    const std::int64_t workspace = kernels::workspace_size(batch, plan, backend).bytes();
    fmt::print("{:>5} {:>6.3f} {:>7} {:>7} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10} {:>6}\n", rank,
               mean > 0 ? load.cost / mean : 1, load.pieces, load.kv_pages,
               bytes_text(load.kv_bytes), bytes_text(load.q_bytes + load.out_bytes),
               bytes_text(workspace),
               bytes_text(load.kv_bytes + load.q_bytes + load.out_bytes + workspace),
               load.partials_sent, bytes_text(load.bytes_sent), load.messages_sent);
  }
}

std::string owners_text(const Partition& partition, const Piece& piece) {
  std::vector<int> owners;
  for (const Ownership& o : owners_of(partition, piece.request, piece.heads)) {
    owners.push_back(o.owner);
  }
  return fmt::format("{}", fmt::join(owners, ","));
}

void print_pieces(const Batch& batch, const Partition& partition) {
  fmt::print("{:>5} {:>9} {:>10} {:>14} {:>6}\n", "rank", "request", "heads", "chunks", "owners");
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    for (const Piece& piece : partition.pieces_of(rank)) {
      fmt::print("{:>5} {:>9} {:>10} {:>14} {:>6}  {}\n", rank, piece.request,
                 fmt::format("{}-{}", piece.heads.begin, piece.heads.end),
                 fmt::format("{}-{} of {}", piece.chunks.begin, piece.chunks.end,
                             batch.num_chunks(batch.requests[piece.request])),
                 owners_text(partition, piece), batch.requests[piece.request].custom_id);
    }
  }
}

ExitCode plan(const PlanOptions& options) {
  const ShardMode mode = parse_shard_mode(options.mode, options.ranks);
  const Batch batch = proto::read_batch(options.batch);
  validate(batch, ValidateFor::kPlanning);
  const Partition partition = make_partition(batch, mode, options.ranks);
  const std::vector<RankLoad> loads = loads_of(batch, partition);
  fmt::print("batch    {}\n", batch_text(batch));
  fmt::print("plan     mode {}, {} ranks of {} thread(s): {}\n", to_string(partition.mode),
             options.ranks, options.threads, balance_text(batch, loads));
  print_ranks(batch, partition, loads, options);
  if (options.pieces) print_pieces(batch, partition);
  return ExitCode::kDone;
}

void add_model_options(CLI::App& cmd, PlanModelOptions& model) {
  constexpr const char* kGroup = "With --model";
  cmd.add_option("--layers", model.layers, "Only the first layers; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  cmd.add_option("--sharding", model.sharding, "auto, heads, kv, requests or groups:G")
      ->capture_default_str()
      ->group(kGroup);
  cmd.add_option("--requests", model.requests, "Requests decoded at a time")
      ->check(within(1, 1 << 20))
      ->capture_default_str()
      ->group(kGroup);
  cmd.add_option("--context", model.context, "Tokens of each")
      ->check(within(1, 1 << 24))
      ->capture_default_str()
      ->group(kGroup);
  cmd.add_option("--max-tokens", model.max_tokens, "Tokens of a step")
      ->check(within(1, 1 << 20))
      ->capture_default_str()
      ->group(kGroup);
  cmd.add_option("--kv-dtype", model.kv_dtype, "bf16, fp16 or fp32")
      ->capture_default_str()
      ->group(kGroup);
  cmd.add_option("--rank-gib", model.rank_gib, "Memory of a rank; 0: what this machine has")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(kGroup);
}

}  // namespace

Command add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  auto model = std::make_shared<PlanModelOptions>();
  CLI::App* cmd = app.add_subcommand("plan", "Show who would do what, without running it");
  auto* what = cmd->add_option_group("what", "What to plan");
  what->add_option("batch", options->batch, "Batch file; one of lengths only will do");
  what->add_option("--model", model->model, "Folder of a model, or the name of a preset");
  what->require_option(1);
  add_model_options(*cmd, *model);
  cmd->add_option("--ranks", options->ranks, "Ranks to plan for")
      ->check(within(1, 1 << 20))
      ->capture_default_str();
  cmd->add_option("--threads", options->threads, "Threads per rank")
      ->check(within(1, 4096))
      ->capture_default_str();
  cmd->add_option("--mode", options->mode, "auto, heads, kv, batch or grid:HxK")
      ->capture_default_str()
      ->envname("MESHMLA_MODE");
  cmd->add_option("--backend", options->backend, "Kernels whose workspace is counted")
      ->capture_default_str()
      ->envname("MESHMLA_BACKEND");
  cmd->add_flag("--pieces", options->pieces, "List every piece of every rank");
  return root_command([options, model] {
    if (model->model.empty()) return plan(*options);
    model->ranks = options->ranks;
    model->backend = options->backend;
    plan_model(*model);
    return ExitCode::kDone;
  });
}

}  // namespace mla::launch
