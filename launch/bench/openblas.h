#pragma once

#include <memory>
#include <string>

#include "launch/bench/contender.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// Two products by OpenBLAS's sgemm. `cache` is the first `cache_elements` of `pool` in fp32. Null
/// if this build lacks the library.
std::unique_ptr<Contender> make_openblas(const Workload& workload, const Pool& pool,
                                         const float* cache, std::int64_t cache_elements, bool hot);

/// "OpenBLAS 0.3.21"; empty if this build lacks it.
std::string openblas_version();

}  // namespace mla::launch::bench
