#pragma once

#include <memory>
#include <string>

#include "launch/bench/contender.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// Two products by oneDNN's bf16 matmul, fp32 scores, weights rounded to bf16; primitives are
/// created here. Null where the library cannot do it or this build lacks it (`why` says so).
std::unique_ptr<Contender> make_onednn(const Workload& workload, const Pool& pool, bool hot,
                                       std::string& why);

/// "oneDNN 3.2.0"; empty if this build lacks it.
std::string onednn_version();

}  // namespace mla::launch::bench
