#pragma once

#include "core/batch.h"
#include "core/calibration.h"
#include "dist/communicator.h"
#include "dist/engine.h"
#include "kernels/backend.h"

namespace mla::dist {

/// Measures what planning a job needs to know: how fast ranks compute and make the cache of
/// `batch`, all of them at the same time; and unless the job is predicted to take less than
/// `min_job_seconds`, what messages take between neighbours on a node and between nodes. Takes a
/// few tens of milliseconds as a rule. Medians over ranks count. A backend that computes on GPUs is
/// not measured, and then nothing is. Collective; all ranks get the same.
/// @throws CollectiveError if a rank cannot compute or exchange as the settings say.
Calibration calibrate(const Communicator& comm, const Batch& batch, const kernels::Backend& backend,
                      const DecodeSettings& settings, double min_job_seconds);

}  // namespace mla::dist
