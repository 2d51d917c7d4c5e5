#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/trace.h"
#include "launch/bench/bench.h"
#include "launch/bench/linear_bench.h"
#include "launch/bench/model_bench.h"
#include "launch/command.h"
#include "proto/file_io.h"
#include "proto/trace_file.h"

namespace mla::launch {
namespace {

/// What replaces lists of sizes, before it has been read.
struct Lengths {
  std::string list;
  std::filesystem::path trace;
  TraceBatchOptions from_trace{.requests = 16};
  std::filesystem::path rows;
};

struct Options {
  bench::BenchOptions bench;
  bool linear = false;
  bench::LinearBenchOptions linear_layers;
  bench::ModelBenchOptions model;
  Lengths lengths;
  std::string format = "table";
  std::filesystem::path output;
};

void read_lengths(const Lengths& lengths, bench::Grid& grid) {
  if (!lengths.list.empty()) grid.lengths = bench::parse_sizes("--lengths", lengths.list);
  if (!lengths.rows.empty()) grid.rows = proto::MappedFile(lengths.rows).text();
  if (lengths.trace.empty()) return;
  TraceBatchOptions options = lengths.from_trace;
  options.lengths_only = true;
  const Batch batch = batch_from_trace(proto::read_trace(lengths.trace), options);
  for (const Request& request : batch.requests) {
    grid.lengths.push_back(std::max<std::int64_t>(1, request.context_len));
  }
}

/// The file asked for, or standard output.
class Output {
 public:
  explicit Output(const std::filesystem::path& path) {
    if (!path.empty()) file_.emplace(path);
  }
  void write(const std::string& text) {
    if (file_) {
      file_->write(text);
    } else {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
  }
  void commit() {
    if (file_) file_->commit();
  }

 private:
  std::optional<proto::AtomicFile> file_;
};

/// On all ranks.
ExitCode run_model(const dist::Communicator& comm, const Options& options) {
  std::optional<Output> output;
  comm.on_root([&] { output.emplace(options.output); });
  const ExitCode code = bench::run_model_bench(
      comm, options.model, [&output](const std::string& text) { output->write(text); });
  comm.on_root([&] { output->commit(); });
  return code;
}

ExitCode run(Options options) {
  read_lengths(options.lengths, options.bench.grid);
  Output output(options.output);
  const auto sink = [&output](const std::string& text) { output.write(text); };
  if (options.linear) {
    bench::LinearBenchOptions linear = options.linear_layers;
    linear.threads = options.bench.grid.threads;
    linear.backends = options.bench.backends;
    linear.repeats = options.bench.repeats;
    linear.hot = options.bench.hot;
    const ExitCode code = bench::run_linear_bench(linear, sink);
    output.commit();
    return code;
  }
  const auto report = bench::make_report(options.format, options.bench.compares(), sink);
  const ExitCode code = bench::run_bench(options.bench, *report);
  output.commit();
  return code;
}

void check_ranks(const dist::Communicator& comm) {
  if (comm.size() == 1) return;
  throw InvalidArgument(
      "ranks", std::to_string(comm.size()),
      "1: without --model, bench measures one process, on as many --threads as it has cores");
}

/// Options that take the place of --seqlen and others.
void add_lengths(CLI::App& cmd, bench::Grid& grid, Lengths& lengths, CLI::Option* projected) {
  CLI::Option* const seqlen = cmd.get_option("--seqlen");
  CLI::Option* const batch = cmd.get_option("--batch");
  CLI::Option* const varlen = cmd.add_flag(
      "--varlen", grid.varlen, "Draw the requests' lengths: normal, with deviation seqlen / 2");
  CLI::Option* const list = cmd.add_option(
      "--lengths", lengths.list, "One batch of requests of these lengths, as 4641,45118,1730,1696");
  CLI::Option* const trace = cmd.add_option(
      "--trace", lengths.trace, "One batch with the input lengths of a Mooncake or Azure trace");
  cmd.add_option("--requests", lengths.from_trace.requests, "With --trace: entries to take")
      ->needs(trace)
      ->capture_default_str();
  cmd.add_option("--first", lengths.from_trace.first, "With --trace: position of the first entry")
      ->needs(trace)
      ->capture_default_str();
  CLI::Option* const rows = cmd.add_option(
      "--rows", lengths.rows,
      "File with a line 'batch s_q heads seqlen' for each point; ~4k as seqlen draws lengths");
  for (CLI::Option* const option : {varlen, list, trace, rows}) option->excludes(projected);
  for (CLI::Option* const option : {list, trace, rows}) {
    option->excludes(seqlen)->excludes(batch)->excludes(varlen);
  }
  list->excludes(trace)->excludes(rows);
  trace->excludes(rows);
  rows->excludes(cmd.get_option("--heads"))->excludes(cmd.get_option("--s-q"));
}

/// Sizes are those of the grid, where they are given.
void add_model(CLI::App& cmd, Options& options, CLI::Option* projected) {
  bench::ModelBenchOptions& model = options.model;
  CLI::Option* const name =
      cmd.add_option("--model", model.model,
                     "Measure a whole model with made-up weights instead, on all ranks: a preset "
                     "or a folder with a config.json");
  name->excludes(projected)->excludes(cmd.get_option("--linear"));
  cmd.add_option("--model-layers", model.layers, "With --model: only the first so many layers")
      ->needs(name)
      ->check(within(1, 10'000));
  cmd.add_option("--sharding", model.sharding,
                 "With --model: how ranks share it: auto, heads, kv, requests or groups:G")
      ->needs(name)
      ->capture_default_str();
  cmd.add_option("--steps", model.steps, "With --model: tokens of each request")
      ->needs(name)
      ->check(within(1, 100'000))
      ->capture_default_str();
  cmd.parse_complete_callback([&cmd, &options] {
    bench::ModelBenchOptions& m = options.model;
    const bench::Grid& grid = options.bench.grid;
    if (cmd.count("--batch") > 0) m.requests = grid.batches;
    if (cmd.count("--seqlen") > 0) m.contexts = grid.context_lens;
    if (cmd.count("--dtype") > 0) m.kv_dtype = grid.dtypes;
    if (options.bench.combine == "fast") m.combine = "fast";
    m.threads = grid.threads;
    m.backend = options.bench.backends;
  });
}

void add_linear(CLI::App& cmd, Options& options, CLI::Option* projected) {
  CLI::Option* const linear =
      cmd.add_flag("--linear", options.linear, "Measure linear layers instead, in a table");
  linear->excludes(projected);
  cmd.add_option("--layers", options.linear_layers.layers,
                 "With --linear: outputs x columns; 6:1408x2048 are six that run together")
      ->needs(linear)
      ->capture_default_str();
  cmd.add_option("--tokens", options.linear_layers.rows, "With --linear: rows, as 1..256*4")
      ->needs(linear)
      ->capture_default_str();
}

/// Returns the flag --projected.
CLI::Option* add_grid(CLI::App& cmd, bench::Grid& grid) {
  cmd.add_option("--heads", grid.heads, "Query heads: sizes and ranges, as 16,128 or 16..64+16")
      ->capture_default_str();
  cmd.add_option("--seqlen", grid.context_lens, "Cached tokens of each request, as 1k..128k*2")
      ->capture_default_str();
  cmd.add_option("--batch", grid.batches, "Requests")->capture_default_str();
  cmd.add_option("--s-q", grid.query_lens, "Query tokens of each request")->capture_default_str();
  cmd.add_option("--shape", grid.shapes, "d_qk/d_v of cache rows, as 576/512,320/256")
      ->capture_default_str();
  cmd.add_option("--dtype", grid.dtypes, "bf16, fp16 or both")->capture_default_str();
  cmd.add_option("--threads", grid.threads, "Numbers of threads [one per core]")
      ->envname("MESHMLA_THREADS");
  cmd.add_option("--page", grid.page, "Tokens per page")->capture_default_str();
  cmd.add_option("--chunk", grid.chunk, "Tokens per canonical chunk")->capture_default_str();
  CLI::Option* const projected = cmd.add_flag(
      "--projected", grid.projected,
      "Measure decode with the projections W_UK and W_UV around it, fused and in steps");
  cmd.add_option("--nope", grid.d_nope, "With --projected: what W_UK takes of a query")
      ->needs(projected)
      ->capture_default_str();
  cmd.add_option("--v-head", grid.d_v_head, "With --projected: what W_UV gives")
      ->needs(projected)
      ->capture_default_str();
  return projected;
}

}  // namespace

Command add_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  bench::BenchOptions& b = options->bench;
  CLI::App* cmd = app.add_subcommand(
      "bench", "Measure how fast this machine decodes, and how far from its limits");
  CLI::Option* const projected = add_grid(*cmd, b.grid);
  add_lengths(*cmd, b.grid, options->lengths, projected);
  add_linear(*cmd, *options, projected);
  add_model(*cmd, *options, projected);
  cmd->add_option("--backend", b.backends, "auto, all, or names with commas between them")
      ->capture_default_str()
      ->envname("MESHMLA_BACKEND");
  cmd->add_option("--combine", b.combine,
                  "Of GPU backends: exact, fast or both; with --model and --sharding kv: exact, "
                  "unless it is fast")
      ->check(CLI::IsMember({"exact", "fast", "both"}))
      ->capture_default_str();
  cmd->add_option("--repeats", b.repeats.repeats, "Repeats of each point, at least")
      ->check(within(1, 1'000'000))
      ->capture_default_str();
  cmd->add_option("--seconds", b.repeats.seconds, "Seconds of each point, at least")
      ->check(within(0.0, 3600.0))
      ->capture_default_str();
  cmd->add_option("--max-cache", b.max_cache,
                  "Leave out points that need more memory, in MiB [8k, or half of the machine's]");
  cmd->add_flag("--hot", b.hot, "Read the same pages in every repeat");
  cmd->add_flag("--limits,!--no-limits", b.limits,
                "Measure first what the machine can do, to compare with [on]");
  cmd->add_flag("--peers", b.peers,
                "Measure OpenBLAS and oneDNN beside it, where this build has them")
      ->excludes(projected);
  cmd->add_option("--format", options->format, "Form of the output")
      ->check(CLI::IsMember({"table", "csv", "json", "markdown"}))
      ->capture_default_str();
  cmd->add_option("-o,--output", options->output, "File to write instead of standard output");
  return [options](const dist::Communicator& comm) {
    if (!options->model.model.empty()) return run_model(comm, *options);
    comm.together([&] { check_ranks(comm); });
    return root_command([options] { return run(*options); })(comm);
  };
}

}  // namespace mla::launch
