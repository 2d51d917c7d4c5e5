#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "core/error.h"
#include "launch/command.h"
#include "launch/tables.h"
#include "proto/batch_file.h"
#include "proto/file_io.h"
#include "proto/result_file.h"
#include "proto/safetensors.h"

namespace mla::launch {
namespace {

struct InspectOptions {
  std::filesystem::path file;
  std::int64_t rows = 20;
};

std::string source_text(const TensorSource& source) {
  switch (source.kind) {
    case TensorSource::Kind::kNone:
      return "none";
    case TensorSource::Kind::kSafetensors:
      return source.file + ":" + source.tensor;
    case TensorSource::Kind::kInline:
      return "inline, " + bytes_text(static_cast<std::int64_t>(source.bytes.size()));
    case TensorSource::Kind::kGenerated:
      return fmt::format("generated, seed {}", source.seed);
  }
  return "?";
}

/// Calls `print` for the first of `list`, and says how many more there are.
template <class Element, class Print>
void print_rows(const std::vector<Element>& list, std::int64_t rows, Print print) {
  const std::int64_t shown = std::min<std::int64_t>(rows, std::ssize(list));
  std::for_each_n(list.begin(), shown, print);
  const std::int64_t rest = std::ssize(list) - shown;
  if (rest > 0) fmt::print("  ... and {} more (--rows)\n", rest);
}

void inspect_batch(const InspectOptions& options) {
  const Batch batch = proto::read_batch(options.file);
  validate(batch, ValidateFor::kPlanning);
  fmt::print("batch    {}\n", batch_text(batch));
  fmt::print("shape    h_q {}, h_kv {}, d_qk {}, d_v {}, {} in, {} out, {}, softmax_scale {:.8g}\n",
             batch.shape.h_q, batch.shape.h_kv, batch.shape.d_qk, batch.shape.d_v,
             name_of(batch.dtype), name_of(batch.out_dtype), batch.causal ? "causal" : "not causal",
             batch.softmax_scale);
  fmt::print("cache    {} pages of {} tokens, {} ({}), chunks of {} tokens\n", batch.num_pages,
             batch.page_block_size,
             bytes_text(batch.num_pages * batch.page_elements() * size_of(batch.dtype)),
             source_text(batch.kv_cache), batch.chunk_tokens);
  fmt::print("{:>24} {:>9} {:>11} {:>7}  {}\n", "custom_id", "query_len", "context_len", "chunks",
             "q");
  print_rows(batch.requests, options.rows, [&](const Request& r) {
    fmt::print("{:>24} {:>9} {:>11} {:>7}  {}\n", r.custom_id, r.query_len, r.context_len,
               batch.num_chunks(r), source_text(r.q));
  });
}

void inspect_results(const InspectOptions& options) {
  const proto::ResultSet set = proto::read_results(options.file);
  fmt::print("results  {} requests\n", set.results.size());
  fmt::print("{:>24} {:>9} {:>5} {:>5} {:>5}  {}\n", "custom_id", "query_len", "h_q", "d_v", "out",
             "checksum or error");
  print_rows(set.results, options.rows, [](const Result& r) {
    fmt::print("{:>24} {:>9} {:>5} {:>5} {:>5}  {}\n", r.custom_id, r.query_len, r.h_q, r.d_v,
               name_of(r.out_dtype),
               r.error.empty() ? fmt::format("{:016x}", proto::checksum_of(r)) : r.error);
  });
}

void inspect_safetensors(const InspectOptions& options) {
  const proto::SafetensorsFile file(options.file);
  fmt::print("tensors  {}\n", file.tensors().size());
  for (const auto& [key, value] : file.metadata()) fmt::print("  {} = {}\n", key, value);
  print_rows(file.tensors(), options.rows, [](const proto::TensorInfo& t) {
    fmt::print("{:>32} {:>8} {:>10}  {}\n", t.name, t.dtype, bytes_text(t.bytes.size()),
               proto::shape_text(t.shape));
  });
}

ExitCode inspect(const InspectOptions& options) {
  if (proto::MappedFile(options.file).text().starts_with("MESHMLAR")) {
    inspect_results(options);
  } else if (options.file.extension() == ".safetensors") {
    inspect_safetensors(options);
  } else {
    inspect_batch(options);
  }
  return ExitCode::kDone;
}

}  // namespace

Command add_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* cmd = app.add_subcommand("inspect", "Show what a batch, result or tensor file holds");
  cmd->add_option("file", options->file, "Batch, result file or .safetensors")->required();
  cmd->add_option("--rows", options->rows, "Most requests or tensors listed")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  return root_command([options] { return inspect(*options); });
}

}  // namespace mla::launch
