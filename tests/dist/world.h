#pragma once

#include "dist/communicator.h"

namespace mla::dist {

/// All ranks of the test job.
const Communicator& test_world();

}  // namespace mla::dist
