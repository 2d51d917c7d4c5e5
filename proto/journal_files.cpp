#include "proto/journal_files.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>

#include "core/error.h"
#include "proto/file_io.h"

namespace mla::proto {
namespace {

namespace fs = std::filesystem;

/// The run and rank that the name of a journal of `output` says; none if it is no such name.
std::optional<JournalFile> parse_name(const std::string& name, const fs::path& output) {
  const std::string stem = output.filename().string();
  int run = 0;
  int rank = 0;
  if (!name.starts_with(stem) ||
      std::sscanf(name.c_str() + stem.size(), ".run-%d.rank-%d.", &run, &rank) != 2) {
    return std::nullopt;
  }
  JournalFile file = journal_of(output, run, rank);
  if (run < 0 || rank < 0 || file.path.filename() != name) return std::nullopt;
  return file;
}

/// True for what `AtomicFile` writes to before `output`, or its manifest, appears.
bool is_temporary_of(std::string_view name, const fs::path& output) {
  for (const char* kind : {".tmp", ".manifest.json.tmp"}) {
    const std::string stem = output.filename().string() + kind;
    if (name.size() > stem.size() && name.starts_with(stem) &&
        name.find_first_not_of("0123456789", stem.size()) == std::string_view::npos) {
      return true;
    }
  }
  return false;
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
