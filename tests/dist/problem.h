#pragma once

#include "tests/support/generated_problem.h"

namespace mla::dist {

using Problem = test::GeneratedProblem;

}  // namespace mla::dist
