#pragma once

#include "dist/communicator.h"

namespace mla::launch {

/// Bytes per second that this rank reads from memory while all ranks do: the best of several
/// attempts. All ranks of a node together read more than its caches hold. Takes about 0.3 s.
/// Collective.
double read_rate(const dist::Communicator& comm, int threads);

}  // namespace mla::launch
