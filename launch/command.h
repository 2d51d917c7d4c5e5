#pragma once

#include <functional>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "dist/communicator.h"

namespace mla::launch {

/// Runs a command after its options have been parsed. Called on every rank of the job.
/// @throws Error; a dist::CollectiveError if all ranks know of it.
using Command = std::function<ExitCode(const dist::Communicator&)>;

/// Each adds one subcommand with its options to `app` and returns what runs it.
Command add_bench(CLI::App& app);
Command add_decode(CLI::App& app);
Command add_generate(CLI::App& app);
Command add_inspect(CLI::App& app);
Command add_make_batch(CLI::App& app);
Command add_perplexity(CLI::App& app);
Command add_plan(CLI::App& app);
Command add_verify(CLI::App& app);

/// Checks that an option's number lies in [least, most]; each version of CLI11 words its own such
/// errors in another way.
CLI::Validator within(double least, double most);

/// Wraps work that rank 0 does alone, whatever the number of ranks.
template <class Work>
Command root_command(Work work) {
  return [work](const dist::Communicator& comm) {
    ExitCode code = ExitCode::kDone;
    comm.on_root([&] { code = work(); });
    return comm.all_gather(code).front();
  };
}

}  // namespace mla::launch
