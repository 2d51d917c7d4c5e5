#include <memory>

#include "launch/command.h"
#include "launch/generate/model_settings.h"
#include "launch/generate/perplexity.h"

namespace mla::launch {

Command add_perplexity(CLI::App& app) {
  auto options = std::make_shared<PerplexityOptions>();
  CLI::App* cmd = app.add_subcommand("perplexity", "How well a model predicts a text");
  add_model_settings(cmd, options->model);
  cmd->add_option("text", options->text, "Text file, UTF-8")->required();
  return [options](const dist::Communicator& comm) { return run_perplexity(comm, *options); };
}

}  // namespace mla::launch
