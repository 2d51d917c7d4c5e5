#pragma once

#include <string>
#include <vector>

#include "dist/communicator.h"

namespace mla::launch {

/// How the job's threads sit on cores, over all ranks.
struct Placement {
  int ranks = 0;
  int nodes = 0;
  int threads = 0;  ///< of all ranks
  int cores = 0;    ///< logical CPUs (hyper-threads count as two) that at least one rank may use,
                    ///< over all nodes
  /// One line per trap found: threads of a rank that share a core, ranks that share cores.
  std::vector<std::string> warnings;
};

/// Finds out where every rank may run. Collective.
Placement survey_placement(const dist::Communicator& comm, int threads);

}  // namespace mla::launch
