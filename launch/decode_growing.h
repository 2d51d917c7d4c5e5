#pragma once

#include <cstdint>
#include <span>

#include "launch/decode_job.h"
#include "launch/decode_step.h"
#include "launch/job_journals.h"

namespace mla::launch {

/// `decode --steps T`: decodes `requests` T times as they grow, in plans, memory and windows that
/// are kept, and hands what this rank owns of the last step to `journals`. Every rank holds the
/// tensors that any of the steps needs. Fills in what `report` says of the steps. Returns whether
/// it came to the last one. Collective.
bool decode_growing(const DecodeContext& context, std::span<const std::int64_t> requests,
                    JobJournals& journals, RankMeasurements& measured, DecodeReport& report);

}  // namespace mla::launch
