#include "proto/journal_files.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>

#include "core/error.h"
#include "proto/file_io.h"

namespace mla::proto {
namespace {

namespace fs = std::filesystem;

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

/// The run and rank that the name of a journal of `output` says; none if it is no such name.
std::optional<JournalFile> parse_name(std::string_view name, const fs::path& output) {
  if (!take(name, output.filename().string()) || !take(name, ".run-")) return std::nullopt;
  const auto run = take_number(name);
  if (!run || !take(name, ".rank-")) return std::nullopt;
  const auto rank = take_number(name);
  if (!rank || name != ".journal") return std::nullopt;
  return journal_of(output, *run, *rank);
}

/// True for what `AtomicFile` writes to before `output`, or its manifest, appears.
bool is_temporary_of(std::string_view name, const fs::path& output) {
  if (!take(name, output.filename().string())) return false;
  take(name, ".manifest.json");
  return take(name, ".tmp") && take_number(name) && name.empty();
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) throw IoError("list folder", folder.string(), error.value());
  return names;
}

}  // namespace

JournalFile journal_of(const fs::path& output, int run, int rank) {
  fs::path path = output;
  path += ".run-" + std::to_string(run) + ".rank-" + std::to_string(rank) + ".journal";
  return {run, rank, std::move(path)};
}

std::vector<JournalFile> find_journals(const fs::path& output) {
  std::vector<JournalFile> files;
  for (const std::string& name : names_in(folder_of(output))) {
    if (auto file = parse_name(name, output)) files.push_back(std::move(*file));
  }
  std::sort(files.begin(), files.end(), [](const JournalFile& a, const JournalFile& b) {
    return std::tie(a.run, a.rank) < std::tie(b.run, b.rank);
  });
  return files;
}

void remove_journals(const std::vector<JournalFile>& files, const fs::path& output) {
  for (const JournalFile& file : files) remove_file(file.path);
  for (const std::string& name : names_in(folder_of(output))) {
    if (is_temporary_of(name, output)) remove_file(folder_of(output) / name);
  }
}

int next_run(const std::vector<JournalFile>& files) {
  return files.empty() ? 1 : files.back().run + 1;
}

}  // namespace mla::proto
