#include "tests/launch/run_command.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include <stdlib.h>
#include <sys/wait.h>

namespace mla::launch {

CommandResult run_meshmla(int ranks, const std::string& arguments) {
  const TemporaryFolder folder;
  std::string command = "OMP_NUM_THREADS=1 ";
  if (ranks > 0) {
    command += std::string(MLA_LAUNCHER) + " --oversubscribe --bind-to none -n " +
               std::to_string(ranks) + " ";
  }
  command += std::string(MLA_BINARY_DIR) + "/bin/meshmla " + arguments + " >" + (folder / "out") +
             " 2>" + (folder / "err") + " </dev/null";

  const auto start = std::chrono::steady_clock::now();
  const int status = std::system(command.c_str());
  CommandResult result;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.output = read_file(folder / "out");
  std::istringstream errors(read_file(folder / "err"));
  for (std::string line; std::getline(errors, line);) {
    // mpirun adds a notice of its own about a rank's exit code.
    if (line.starts_with("meshmla:")) result.errors.push_back(line);
  }
  return result;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "meshmla-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::filesystem::remove_all(path_);
}

std::vector<std::string> TemporaryFolder::files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace mla::launch
