#include <algorithm>
#include <fstream>
#include <memory>

#include <fmt/format.h>

#include "core/error.h"
#include "launch/command.h"
#include "launch/tables.h"
#include "proto/batch_file.h"
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

void print_rest(std::size_t total, std::int64_t shown) {
  const auto rest = static_cast<std::int64_t>(total) - shown;
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
  const std::int64_t shown =
      std::min<std::int64_t>(options.rows, static_cast<std::int64_t>(batch.requests.size()));
  fmt::print("{:>24} {:>9} {:>11} {:>7}  {}\n", "custom_id", "query_len", "context_len", "chunks",
             "q");
  for (std::int64_t i = 0; i < shown; ++i) {
    const Request& r = batch.requests[i];
    fmt::print("{:>24} {:>9} {:>11} {:>7}  {}\n", r.custom_id, r.query_len, r.context_len,
               batch.num_chunks(r), source_text(r.q));
  }
  print_rest(batch.requests.size(), shown);
}

void inspect_results(const InspectOptions& options) {
  const proto::ResultSet set = proto::read_results(options.file);
  fmt::print("results  {} requests\n", set.results.size());
  fmt::print("{:>24} {:>9} {:>5} {:>5} {:>5}  {}\n", "custom_id", "query_len", "h_q", "d_v", "out",
             "checksum or error");
  const std::int64_t shown =
      std::min<std::int64_t>(options.rows, static_cast<std::int64_t>(set.results.size()));
  for (std::int64_t i = 0; i < shown; ++i) {
    const Result& r = set.results[i];
    fmt::print("{:>24} {:>9} {:>5} {:>5} {:>5}  {}\n", r.custom_id, r.query_len, r.h_q, r.d_v,
               name_of(r.out_dtype),
               r.error.empty() ? fmt::format("{:016x}", proto::checksum_of(r)) : r.error);
  }
  print_rest(set.results.size(), shown);
}

void inspect_safetensors(const InspectOptions& options) {
  const proto::SafetensorsFile file(options.file);
  fmt::print("tensors  {}\n", file.tensors().size());
  for (const auto& [key, value] : file.metadata()) fmt::print("  {} = {}\n", key, value);
  const std::int64_t shown =
      std::min<std::int64_t>(options.rows, static_cast<std::int64_t>(file.tensors().size()));
  for (std::int64_t i = 0; i < shown; ++i) {
    const proto::TensorInfo& t = file.tensors()[i];
    fmt::print("{:>32} {:>8} {:>10}  {}\n", t.name, t.dtype, bytes_text(t.bytes.size()),
               proto::shape_text(t.shape));
  }
  print_rest(file.tensors().size(), shown);
}

bool begins_with(const std::filesystem::path& path, std::string_view magic) {
  std::ifstream file(path, std::ios::binary);
  std::string begin(magic.size(), '\0');
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return begin == magic;
}

ExitCode inspect(const InspectOptions& options) {
  if (begins_with(options.file, "MESHMLAR")) {
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
