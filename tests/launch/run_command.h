#pragma once

#include <filesystem>
#include <string>
#include <vector>

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

/// A new empty folder, removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  /// Names of the files in it, sorted.
  std::vector<std::string> files() const;

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);

}  // namespace mla::launch
