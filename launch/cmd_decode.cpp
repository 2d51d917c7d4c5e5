#include <memory>

#include "launch/command.h"
#include "launch/decode_job.h"

namespace mla::launch {

Command add_decode(CLI::App& app) {
  auto options = std::make_shared<DecodeOptions>();
  CLI::App* cmd = app.add_subcommand("decode", "Decode a batch on all ranks of the job");
  cmd->add_option("batch", options->batch, "Batch file: binary, .txtpb or .json")
      ->required()
      ->envname("MESHMLA_BATCH");
  cmd->add_option("-o,--output", options->output, "Result file to write")
      ->required()
      ->envname("MESHMLA_OUTPUT");
  cmd->add_option("--mode", options->mode,
                  "How work is dealt to ranks: auto, heads, kv, batch or grid:HxK")
      ->capture_default_str()
      ->envname("MESHMLA_MODE");
  cmd->add_option("--backend", options->backend, "Kernels to use; auto takes the fastest")
      ->capture_default_str()
      ->envname("MESHMLA_BACKEND");
  cmd->add_option("--threads", options->threads,
                  "Threads per rank [OMP_NUM_THREADS, else one per core the rank may use]")
      ->check(within(1, 4096))
      ->envname("MESHMLA_THREADS");
  cmd->add_option("--format", options->format,
                  "Form of the output [safetensors for a .safetensors output, else stream]")
      ->check(CLI::IsMember({"stream", "safetensors"}))
      ->envname("MESHMLA_FORMAT");
  cmd->add_option(
         "--combine", options->combine,
         "exact: the same bits for any ranks and batch; fast: a rank sends one partial of bf16 "
         "for a request, and GPUs cut keys as it suits the batch, so bits depend on the cuts")
      ->check(CLI::IsMember({"exact", "fast"}))
      ->capture_default_str();
  cmd->add_option("--exchange", options->exchange,
                  "How partials travel: auto, p2p, alltoallv, shm (on one node) or two-level")
      ->capture_default_str()
      ->envname("MESHMLA_EXCHANGE");
  cmd->add_option("--timeout", options->timeout_seconds,
                  "Give up (exit 6) after so many seconds without progress on any rank; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->envname("MESHMLA_TIMEOUT");
  cmd->add_flag(
      "--keep-going", options->keep_going,
      "Record a request that is wrong in itself as failed and decode the others (exit 4)");
  CLI::Option* const resume = cmd->add_flag(
      "--resume", options->resume,
      "Go on from the journals that an earlier run of this job left beside the output, if any");
  cmd->add_flag("--restart", options->restart, "Discard them and begin anew")->excludes(resume);
  cmd->add_option("--steps", options->steps,
                  "Decode the batch so many times as its requests grow by their query tokens; the "
                  "last step is the batch as it stands")
      ->check(within(1, 1'000'000))
      ->capture_default_str();
  cmd->add_option("--max-hours", options->max_hours,
                  "Stop in time to take no longer; --resume goes on (exit 75)")
      ->check(CLI::PositiveNumber)
      ->envname("MESHMLA_MAX_HOURS");
  cmd->add_option("--step-seconds", options->step_seconds,
                  "About how often the job can stop, for SIGUSR1, SIGTERM or --max-hours")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  cmd->add_flag("-q,--quiet", options->quiet, "Print errors only");
  return [options](const dist::Communicator& comm) { return run_decode(comm, *options); };
}

}  // namespace mla::launch
