#include "tests/bench/rank_bench.h"

#include <algorithm>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "core/median.h"
#include "core/trace.h"
#include "dist/stopwatch.h"
#include "proto/trace_file.h"

namespace mla::bench {

Batch make_bench_batch(const RankBenchOptions& options, std::int64_t requests, bool lengths_only) {
  std::vector<TraceEntry> trace(static_cast<std::size_t>(requests));
  for (TraceEntry& entry : trace) entry.input_length = options.seqlen;
  if (!options.trace.empty()) trace = proto::read_trace(options.trace);
  return batch_from_trace(trace,
                          {.requests = requests,
                           .shape = {.h_q = options.heads, .h_kv = 1, .d_qk = 576, .d_v = 512},
                           .chunk_tokens = options.chunk_tokens,
                           .lengths_only = lengths_only});
}

std::vector<double> median_seconds(const dist::Communicator& comm, int repeats,
                                   std::span<const Work> works) {
  std::vector<std::vector<double>> seconds(works.size());
  for (int repeat = 0; repeat <= repeats; ++repeat) {
    for (std::size_t i = 0; i < works.size(); ++i) {
      works[i].prepare();
      comm.barrier();
      const dist::Stopwatch watch;
      works[i].run();
      const auto all = comm.all_gather(watch.seconds());
      if (repeat > 0) seconds[i].push_back(*std::max_element(all.begin(), all.end()));
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& of_one : seconds) medians.push_back(median(std::move(of_one)));
  return medians;
}

namespace {

void add_options(CLI::App& app, RankBenchOptions& options) {
  app.add_option("--trace", options.trace, "Take the lengths of a Mooncake or Azure trace");
  app.add_option("--seqlen", options.seqlen, "Cached tokens of each request, without a trace");
  app.add_option("--requests", options.requests, "Batch sizes, as 1,8,64")->delimiter(',');
  app.add_option("--heads", options.heads, "Query heads");
  app.add_option("--chunk", options.chunk_tokens, "Tokens per canonical chunk");
  app.add_option("--mode", options.modes, "As of meshmla decode, several with commas")
      ->delimiter(',');
  app.add_option("--backend", options.backend, "As of meshmla decode");
  app.add_option("--exchange", options.exchanges, "As of meshmla decode, several with commas")
      ->delimiter(',');
  app.add_option("--combine", options.combines,
                 "As of meshmla decode, several with commas; decode takes the first")
      ->check(CLI::IsMember({"exact", "fast"}))
      ->delimiter(',');
  app.add_option("--threads", options.threads, "Of each rank");
  app.add_option("--ranks-per-node", options.pretended_ranks_per_node,
                 "Take runs of so many ranks for nodes");
  app.add_option("--repeats", options.repeats, "Of each measurement");
  app.add_option("--rounds", options.rounds,
                 "Of decode: measurements, with a calibration each, that mode auto is judged by");
}

int run(const dist::Communicator& comm, int argc, char** argv) {
  RankBenchOptions options;
  CLI::App app{"Measures decoding and exchanges over the ranks of a job."};
  app.require_subcommand(1);
  CLI::App* decode = app.add_subcommand("decode", "Steps of decoding, and where their time goes");
  CLI::App* exchange = app.add_subcommand("exchange", "The exchange alone, beside what others do");
  add_options(*decode, options);
  add_options(*exchange, options);
  CLI11_PARSE(app, argc, argv);
  if (decode->parsed()) {
    bench_decode(comm, options);
  } else {
    bench_exchange(comm, options);
  }
  return 0;
}

}  // namespace
}  // namespace mla::bench

int main(int argc, char** argv) {
  const mla::dist::Environment environment(argc, argv);
  const auto comm = mla::dist::Communicator::world();
  try {
    return mla::bench::run(comm, argc, argv);
  } catch (const mla::Error& error) {
    std::fprintf(stderr, "rank_bench: %s\n", error.what());
    mla::dist::abort_job(error.exit_code());
  }
}
