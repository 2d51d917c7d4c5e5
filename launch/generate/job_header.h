#pragma once

#include "core/model_config.h"
#include "dist/model/model.h"
#include "launch/generate/generate_job.h"
#include "proto/record_log.h"

namespace mla::launch {

/// What the answers of a job depend on, for its journals: the requests, the model and how it
/// computes; neither ranks and threads nor what they have to share. Of weights it takes the files'
/// names and sizes, since a model may have terabytes. Local. @throws FormatError; IoError.
proto::JournalHeader job_header(const GenerateOptions& options, const ModelConfig& config,
                                const dist::ModelOptions& model_options);

}  // namespace mla::launch
