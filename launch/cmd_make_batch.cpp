#include <memory>

#include <fmt/format.h>

#include "core/error.h"
#include "core/trace.h"
#include "launch/command.h"
#include "launch/tables.h"
#include "proto/batch_file.h"
#include "proto/file_io.h"
#include "proto/trace_file.h"

namespace mla::launch {
namespace {

struct MakeBatchOptions {
  std::filesystem::path trace;
  std::filesystem::path output;
  std::string dtype = "bf16";
  std::string out_dtype;
  TraceBatchOptions batch;
};

DType parse_dtype(const std::string& text) {
  return text == "fp16" ? DType::kFp16 : text == "fp32" ? DType::kFp32 : DType::kBf16;
}

ExitCode make_batch(MakeBatchOptions options) {
  options.batch.dtype = parse_dtype(options.dtype);
  options.batch.out_dtype =
      options.out_dtype.empty() ? options.batch.dtype : parse_dtype(options.out_dtype);
  proto::check_output_path(options.output);
  const Batch batch = batch_from_trace(proto::read_trace(options.trace), options.batch);
  validate(batch, options.batch.lengths_only ? ValidateFor::kPlanning : ValidateFor::kDecoding);
  proto::write_batch(batch, options.output, proto::batch_format_of(options.output));
  fmt::print("{}: {}, {} pages, {} of cache\n", options.output.string(), batch_text(batch),
             batch.num_pages,
             bytes_text(batch.num_pages * batch.page_elements() * size_of(batch.dtype)));
  return ExitCode::kDone;
}

}  // namespace

Command add_make_batch(CLI::App& app) {
  auto options = std::make_shared<MakeBatchOptions>();
  TraceBatchOptions& b = options->batch;
  CLI::App* cmd = app.add_subcommand("make-batch", "Make a batch from a trace of real requests");
  cmd->add_option("trace", options->trace, "Mooncake .jsonl or Azure .csv trace")->required();
  cmd->add_option("-o,--output", options->output, "Batch file to write (.txtpb, .json or binary)")
      ->required();
  cmd->add_option("--requests", b.requests, "Entries to take")->capture_default_str();
  cmd->add_option("--first", b.first, "Position of the first entry")->capture_default_str();
  cmd->add_flag("--sample", b.sample, "Take entries at random, by the seed");
  cmd->add_option("--seed", b.seed, "Of the sample, the page order and the tensors")
      ->capture_default_str();
  cmd->add_option("--heads", b.shape.h_q, "Query heads")->capture_default_str();
  cmd->add_option("--kv-heads", b.shape.h_kv, "Heads of the cache")->capture_default_str();
  cmd->add_option("--d-qk", b.shape.d_qk, "Elements of a cache row")->capture_default_str();
  cmd->add_option("--d-v", b.shape.d_v, "Elements of a value")->capture_default_str();
  cmd->add_option("--query-len", b.query_len, "Query tokens of each request")
      ->capture_default_str();
  cmd->add_option("--page-block-size", b.page_block_size, "Tokens per page")->capture_default_str();
  cmd->add_option("--chunk-tokens", b.chunk_tokens, "Tokens per canonical chunk")
      ->capture_default_str();
  cmd->add_option("--dtype", options->dtype, "Of queries and cache")
      ->check(CLI::IsMember({"bf16", "fp16"}))
      ->capture_default_str();
  cmd->add_option("--out-dtype", options->out_dtype, "Of the results [as --dtype]")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}));
  cmd->add_flag("--lengths-only", b.lengths_only,
                "No block tables and no tensors: a batch to plan, not to decode");
  return root_command([options] { return make_batch(*options); });
}

}  // namespace mla::launch
