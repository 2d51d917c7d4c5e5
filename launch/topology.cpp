#include "launch/topology.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <thread>

#include <omp.h>
#include <sched.h>

#ifdef MLA_HAVE_HWLOC
#include <hwloc.h>
#endif

namespace mla::launch {
namespace {

/// A set of logical CPUs of any number, as the system calls take it.
class CpuSet {
 public:
  explicit CpuSet(int cpus) : cpus_(cpus), set_(CPU_ALLOC(cpus)) { CPU_ZERO_S(bytes(), get()); }

  cpu_set_t* get() const { return set_.get(); }
  std::size_t bytes() const { return CPU_ALLOC_SIZE(cpus_); }
  bool contains(int cpu) const {
    return CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes(), get());
  }
  void add(int cpu) { CPU_SET_S(static_cast<std::size_t>(cpu), bytes(), get()); }

 private:
  struct Free {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  int cpus_;
  std::unique_ptr<cpu_set_t, Free> set_;
};

/// The logical CPUs of OpenMP's places; empty unless the user asked for places. The runtime has
/// then bound this thread to one of them, so the scheduler's answer would be too small.
std::vector<int> cpus_of_places() {
  std::vector<int> cpus;
  for (int place = 0; place < omp_get_num_places(); ++place) {
    std::vector<int> of_place(omp_get_place_num_procs(place));
    omp_get_place_proc_ids(place, of_place.data());
    cpus.insert(cpus.end(), of_place.begin(), of_place.end());
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

/// The logical CPUs that threads of this process may run on.
std::vector<int> allowed_cpus() {
  constexpr int kMost = 1 << 20;
  std::vector<int> cpus = cpus_of_places();
  if (!cpus.empty()) return cpus;
  // The call refuses sets that are smaller than the system's own.
  for (int size = 1024; size <= kMost; size *= 2) {
    const CpuSet set(size);
    if (sched_getaffinity(0, set.bytes(), set.get()) == 0) {
      for (int cpu = 0; cpu < size; ++cpu) {
        if (set.contains(cpu)) cpus.push_back(cpu);
      }
      return cpus;
    }
    if (errno != EINVAL) break;
  }
  const auto all = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  for (int cpu = 0; cpu < all; ++cpu) cpus.push_back(cpu);
  return cpus;
}

#ifdef MLA_HAVE_HWLOC

/// Groups `cpus` by core and finds their NUMA nodes.
Topology group_cpus(const std::vector<int>& cpus) {
  Topology found;
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return found;
  const std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)> owner(
      topology, hwloc_topology_destroy);
  if (hwloc_topology_load(topology) != 0) return found;
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != nullptr;) {
    Core usable{.id = hwloc_bitmap_first(core->complete_cpuset), .cpus = {}};
    for (const int cpu : cpus) {
      if (hwloc_bitmap_isset(core->cpuset, static_cast<unsigned>(cpu)) != 0) {
        usable.cpus.push_back(cpu);
      }
    }
    if (!usable.cpus.empty()) found.cores.push_back(std::move(usable));
  }
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    const auto is_near = [&](int cpu) {
      return hwloc_bitmap_isset(node->cpuset, static_cast<unsigned>(cpu)) != 0;
    };
    if (std::any_of(cpus.begin(), cpus.end(), is_near)) {
      found.numa_nodes.push_back(static_cast<int>(node->os_index));
    }
  }
  found.knows_cores = !found.cores.empty();
  return found;
}

#else

Topology group_cpus(const std::vector<int>&) {
  return {};
}

#endif

Topology survey() {
  const std::vector<int> cpus = allowed_cpus();
  Topology found = group_cpus(cpus);
  if (found.knows_cores) return found;
  for (const int cpu : cpus) found.cores.push_back({cpu, {cpu}});
  return found;
}

}  // namespace

const Topology& this_topology() {
  static const Topology topology = survey();
  return topology;
}

void bind_this_thread(const Core& core) {
  CpuSet set(*std::max_element(core.cpus.begin(), core.cpus.end()) + 1);
  for (const int cpu : core.cpus) set.add(cpu);
  sched_setaffinity(0, set.bytes(), set.get());
}

}  // namespace mla::launch
