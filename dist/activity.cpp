#include "dist/activity.h"

namespace mla::dist {

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::kStart:
      return "start";
    case Phase::kLoad:
      return "load";
    case Phase::kPlan:
      return "plan";
    case Phase::kData:
      return "data";
    case Phase::kCompute:
      return "compute";
    case Phase::kExchange:
      return "exchange";
    case Phase::kMerge:
      return "merge";
    case Phase::kWrite:
      return "write";
    case Phase::kEnd:
      return "end";
  }
  return "an unknown phase";
}

Activity& activity() {
  static Activity the_one;
  return the_one;
}

}  // namespace mla::dist
