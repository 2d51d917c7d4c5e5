#include "tests/launch/run_command.h"

#include <chrono>
#include <cstdlib>
#include <sstream>

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
  result.output = read_text(folder / "out");
  std::istringstream errors(read_text(folder / "err"));
  for (std::string line; std::getline(errors, line);) {
    // mpirun adds a notice of its own about a rank's exit code.
    if (line.starts_with("meshmla:")) result.errors.push_back(line);
  }
  return result;
}

}  // namespace mla::launch
