#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/error.h"
#include "launch/bench/bench.h"
#include "launch/command.h"
#include "proto/file_io.h"

namespace mla::launch {
namespace {

struct Options {
  bench::BenchOptions bench;
  std::string format = "table";
  std::filesystem::path output;
};

void write_out(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

ExitCode run(const Options& options) {
  std::optional<proto::AtomicFile> file;
  if (!options.output.empty()) file.emplace(options.output);
  const auto sink = [&file](const std::string& text) {
    if (file) {
      file->write(text);
    } else {
      write_out(text);
    }
  };
  const auto report = bench::make_report(options.format, options.bench.compares(), sink);
  const ExitCode code = bench::run_bench(options.bench, *report);
  if (file) file->commit();
  return code;
}

void check_ranks(const dist::Communicator& comm) {
  if (comm.size() == 1) return;
  throw InvalidArgument("ranks", std::to_string(comm.size()),
                        "1: bench measures one process, on as many --threads as it has cores");
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
  cmd->add_option("--backend", b.backends, "auto, all, or names with commas between them")
      ->capture_default_str()
      ->envname("MESHMLA_BACKEND");
  cmd->add_option("--repeats", b.repeats.repeats, "Repeats of each point, at least")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  cmd->add_option("--seconds", b.repeats.seconds, "Seconds of each point, at least")
      ->check(CLI::Range(0.0, 3600.0))
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
    comm.together([&] { check_ranks(comm); });
    return root_command([options] { return run(*options); })(comm);
  };
}

}  // namespace mla::launch
