#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mla::proto {

/// A journal beside an output. Every run of a job that is resumed again and again has its own, so
/// that no run touches what another one wrote.
struct JournalFile {
  int run = 1;  ///< of the job: 1, then one more for each time it was resumed
  int rank = 0;
  std::filesystem::path path;
};

/// `<output>.run-<run>.rank-<rank>.journal`.
JournalFile journal_of(const std::filesystem::path& output, int run, int rank);

/// The journals beside `output`, by run, then by rank. @throws IoError.
std::vector<JournalFile> find_journals(const std::filesystem::path& output);

/// Removes `files`, and what killed writers of `output` left under temporary names.
/// @throws IoError.
void remove_journals(const std::vector<JournalFile>& files, const std::filesystem::path& output);

/// The number of the run that follows those that left `files`.
int next_run(const std::vector<JournalFile>& files);

}  // namespace mla::proto
