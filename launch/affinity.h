#pragma once

#include <bitset>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace mla::launch {

/// How the job's threads sit on cores, over all ranks.
struct Placement {
  int ranks = 0;
  int nodes = 0;
  int threads = 0;          ///< of all ranks
  int cores = 0;            ///< physical ones that at least one rank may use, over all nodes
  int numa_nodes = 0;       ///< that the cores belong to, over all nodes; 0 if unknown
  bool knows_cores = true;  ///< false: `cores` are logical CPUs, hyper-threads count as two
  /// One line per trap found: threads of a rank that share a core, ranks that share cores.
  std::vector<std::string> warnings;
};

/// Threads of this rank: `requested` if positive, else OMP_NUM_THREADS, else the physical cores it
/// may use, divided by the ranks of its node that may use them too. Collective.
int choose_threads(const dist::Communicator& comm, int requested);

/// Finds out where every rank may run. Collective.
Placement survey_placement(const dist::Communicator& comm, int threads);

/// Binds the OpenMP threads of this rank to cores as `cores_to_bind` says, unless the user binds
/// them (OMP_PROC_BIND, OMP_PLACES and their kin), and keeps regions within regions from starting
/// more. Once per process. Collective.
void bind_threads(const dist::Communicator& comm, int threads);

/// What a rank's neighbours on a node know of it.
struct RankUse {
  static constexpr std::size_t kMaxCores = 8192;

  std::bitset<kMaxCores> cores;  ///< by Core::id; further ones are not known to others
  int threads = 0;
};

/// The share of `ranks[rank]` in the cores that it may use: all of them, divided by the ranks that
/// may use some of them too; at least 1.
int fair_threads(const std::vector<RankUse>& ranks, std::size_t rank);

/// Which of its cores the threads of `ranks[rank]` are bound to, one each, closest first: ranks
/// that share cores follow one another. Empty if threads are better left to the scheduler: there
/// are fewer cores than threads, ranks share cores in part, or half of the cores would stay idle,
/// so that another job, bound by the same rule, might run on the very cores of this one.
std::vector<int> cores_to_bind(const std::vector<RankUse>& ranks, std::size_t rank);

}  // namespace mla::launch
