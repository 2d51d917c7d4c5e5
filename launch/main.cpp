#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <string>

#include <CLI/CLI.hpp>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "core/build_info.h"
#include "core/error.h"
#include "dist/communicator.h"
#include "launch/command.h"

namespace {

using mla::ExitCode;

void print_error(const char* line) {
  std::fprintf(stderr, "meshmla: error: %s\n", line);
  std::fflush(stderr);
}

/// Makes the file that meshmla-mpirun asks for: from then on, whatever ends the job is a loss and
/// no failure to start. On other nodes its folder does not exist, and there is nothing to do.
void tell_launcher_of_start() {
  if (const char* file = std::getenv("MESHMLA_STARTED")) std::ofstream{file};
}

/// Parses the command line and runs the command it names.
ExitCode dispatch(const mla::dist::Communicator& comm, int argc, char** argv) {
  CLI::App app{"MeshMLA decodes batches for models with multi-head latent attention over MPI."};
  app.set_version_flag("--version", mla::build_summary() + "\n" + mla::dist::mpi_version());
  app.set_config("--config", "",
                 "INI or TOML file with options, those of a command in its section");
  app.require_subcommand(1);

  std::map<std::string, mla::launch::Command> commands;
  commands["bench"] = mla::launch::add_bench(app);
  commands["decode"] = mla::launch::add_decode(app);
  commands["make-batch"] = mla::launch::add_make_batch(app);
  commands["generate"] = mla::launch::add_generate(app);
  commands["inspect"] = mla::launch::add_inspect(app);
  commands["perplexity"] = mla::launch::add_perplexity(app);
  commands["plan"] = mla::launch::add_plan(app);
  commands["verify"] = mla::launch::add_verify(app);

  bool only_help = false;
  comm.together([&] {  // config files and the environment may differ between nodes
    const std::string first = argc > 1 ? argv[1] : "none";
    if (!first.starts_with('-') && !commands.contains(first)) {
      throw mla::InvalidArgument(
          "command", first,
          "bench, decode, generate, inspect, make-batch, perplexity, plan or "
          "verify");
    }
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& help) {
      if (comm.rank() == 0) app.exit(help);
      only_help = true;
    } catch (const CLI::ParseError& error) {
      throw mla::Error(ExitCode::kUsage,
                       std::string(error.what()) + "; expected what 'meshmla --help' shows");
    }
  });
  if (only_help) return ExitCode::kDone;
  return commands.at(app.get_subcommands().front()->get_name())(comm);
}

}  // namespace

int main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_color_mt("meshmla"));
  spdlog::set_pattern("meshmla: %^%l%$: %v");
  // Without mpirun Open MPI would start a daemon, 0.1 s, for processes that this one might spawn.
  setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  try {
    const mla::dist::Environment environment(argc, argv);
    tell_launcher_of_start();
    try {
      const mla::dist::Communicator comm = mla::dist::Communicator::world();
      try {
        return static_cast<int>(dispatch(comm, argc, argv));
      } catch (const mla::dist::CollectiveError& error) {
        if (comm.rank() == 0) print_error(error.what());
        return static_cast<int>(error.exit_code());
      }
    } catch (const mla::Error& error) {  // met by this rank alone; the others may wait for it
      print_error(error.what());
      mla::dist::abort_job(error.exit_code());
    } catch (const std::exception& error) {
      print_error(error.what());
      mla::dist::abort_job(ExitCode::kBadInput);
    }
  } catch (const mla::Error& error) {  // MPI did not start
    print_error(error.what());
    return static_cast<int>(error.exit_code());
  }
}
