#include "core/error.h"
#include "launch/bench/device_bench.h"

namespace mla::launch::bench {

std::unique_ptr<DeviceBench> make_device_bench(const Pool& /*pool*/, bool /*hot*/) {
  throw NotCompiled("bench of GPUs", "a build configured with -D MLA_WITH_CUDA=ON");
}

}  // namespace mla::launch::bench
