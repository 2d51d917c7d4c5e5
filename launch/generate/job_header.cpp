#include "launch/generate/job_header.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "core/error.h"
#include "kernels/backend.h"
#include "proto/file_io.h"
#include "proto/hash.h"

namespace mla::launch {
namespace {

namespace fs = std::filesystem;

/// With its length, so that parts cannot run into each other.
void add(proto::Xxh3Stream& hash, std::span<const std::byte> bytes) {
  const std::uint64_t size = bytes.size();
  hash.update(std::as_bytes(std::span(&size, 1)));
  hash.update(bytes);
}

void add(proto::Xxh3Stream& hash, std::string_view text) {
  add(hash, std::as_bytes(std::span(text)));
}

/// Configuration, tokenizer and templates whole; of weights the names and sizes.
void add_model(proto::Xxh3Stream& hash, const fs::path& folder) {
  std::set<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    files.insert(entry->path());
  }
  if (error) throw IoError("list folder", folder.string(), error.value());
  for (const fs::path& file : files) {
    const std::string kind = file.extension().string();
    const bool is_weights = kind == ".safetensors";
    if (!is_weights && kind != ".json" && kind != ".jinja") continue;
    add(hash, file.filename().string());
    const proto::MappedFile mapped(file);
    is_weights ? add(hash, std::to_string(mapped.bytes().size())) : add(hash, mapped.bytes());
  }
}

std::uint64_t hash_of_input(const GenerateOptions& options) {
  proto::Xxh3Stream hash;
  add(hash, options.model.name);  // as answers name it
  std::error_code ignored;
  if (fs::is_directory(options.model.name, ignored)) add_model(hash, options.model.name);
  add(hash, proto::MappedFile(options.requests).bytes());
  for (const std::string& stop : options.defaults.stop.strings) add(hash, stop);
  return hash.digest();
}

/// Tokens that a prompt and its answer may have in the cache of this job.
std::int64_t longest_sequence(const dist::ModelOptions& options) {
  return std::min(options.longest_context, options.limits.num_pages * dist::kPageTokens);
}

/// With a fast one the bits depend on how sequences are cut.
std::string combine_of(const dist::ModelSharding& sharding) {
  if (!sharding.fast_combine) return "exact";
  return fmt::format("fast, in runs of {} tokens on {} ranks", sharding.cache_run, sharding.ranks);
}

}  // namespace

proto::JournalHeader job_header(const GenerateOptions& options, const LoadedModel& model) {
  const ModelSettings& settings = options.model;
  const bool is_dummy = settings.load_format == "dummy";
  const auto& [temperature, min_p, top_k, top_p] = options.defaults.sampling;
  return {
      .input_hash = hash_of_input(options),
      .settings = fmt::format(
          "backend: {}, kv_dtype: {}, weights: {}, layers: {}, seed: {}, max_context: {}, "
          "longest sequence: {}, max_tokens: {}, ignore_eos: {}, temperature: {}, min_p: {}, "
          "top_k: {}, top_p: {}, combine: {}, arithmetic: {}",
          model.backend_name(), settings.kv_dtype,
          is_dummy ? "dummy " + settings.dummy_dtype : "of the model", model.config().num_layers,
          settings.seed, model.options().longest_context, longest_sequence(model.options()),
          options.defaults.stop.max_tokens, options.defaults.stop.ignore_eos, temperature, min_p,
          top_k, top_p, combine_of(model.options().sharding), kernels::kArithmeticVersion)};
}

}  // namespace mla::launch
