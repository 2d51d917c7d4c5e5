#pragma once

#include <vector>

namespace mla::launch {

/// A physical core; without hwloc, a logical CPU.
struct Core {
  int id = 0;             ///< its first logical CPU, so that all processes of a node name it alike
  std::vector<int> cpus;  ///< logical CPUs of it that this process may use
};

/// Where this process may run.
struct Topology {
  std::vector<Core> cores;      ///< neighbours follow one another
  std::vector<int> numa_nodes;  ///< numbers of those that the cores belong to; empty if unknown
  bool knows_cores = false;     ///< false: built without hwloc, hyper-threads count as cores
};

/// Found out at the first call, which must come before any thread is bound. Local.
const Topology& this_topology();

/// Keeps the calling thread on `core`. Only a wish: where the system refuses, nothing changes.
void bind_this_thread(const Core& core);

}  // namespace mla::launch
