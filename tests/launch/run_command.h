#pragma once

#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace mla::launch {

/// What a finished command left.
struct CommandResult {
  int exit_code = 0;
  std::string output;               ///< standard output
  std::vector<std::string> errors;  ///< lines of standard error that meshmla wrote
  double seconds = 0;
};

/// Runs `meshmla ARGUMENTS`, under mpirun unless `ranks` is 0, with OMP_NUM_THREADS=1. `arguments`
/// is a piece of a shell command line.
CommandResult run_meshmla(int ranks, const std::string& arguments);

/// Not in memory, of which containers may have little to keep files in.
struct TemporaryFolder : TempDir {
  TemporaryFolder() : TempDir(std::filesystem::temp_directory_path().string()) {}
};

}  // namespace mla::launch
