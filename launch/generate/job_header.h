#pragma once

#include "launch/generate/generate_job.h"
#include "proto/record_log.h"

namespace mla::launch {

/// What the answers of a job depend on, for its journals: the requests, the model and how it
/// computes; neither ranks and threads nor what they have to share. Of weights it takes the files'
/// names and sizes, since a model may have terabytes. Local. @throws FormatError; IoError.
proto::JournalHeader job_header(const GenerateOptions& options, const LoadedModel& model);

}  // namespace mla::launch
