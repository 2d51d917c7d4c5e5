#pragma once

#include <filesystem>
#include <vector>

#include "proto/journal_files.h"

namespace mla::launch {

/// The journals beside `output` that a job goes on from, after those that `restart` discards are
/// removed. @throws InvalidArgument if there are some and the job was told neither; IoError.
std::vector<proto::JournalFile> earlier_journals(const std::filesystem::path& output, bool resume,
                                                 bool restart);

}  // namespace mla::launch
