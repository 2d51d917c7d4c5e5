#include "launch/affinity.h"

#include <algorithm>

#include <sched.h>

namespace mla::launch {
namespace {

struct RankUse {
  cpu_set_t cpus;
  int threads;
};

struct NodeUse {
  int is_first_rank;  // one rank of each node speaks for it
  int threads;
  int cores;
  int crowded_rank_threads;  // of the rank with the fewest cores for its threads
  int crowded_rank_cores;
};

cpu_set_t allowed_cpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  sched_getaffinity(0, sizeof cpus, &cpus);
  return cpus;
}

NodeUse survey_node(const dist::Communicator& node, int threads) {
  const std::vector<RankUse> ranks = node.all_gather(RankUse{allowed_cpus(), threads});
  NodeUse use{.is_first_rank = node.rank() == 0 ? 1 : 0,
              .threads = 0,
              .cores = 0,
              .crowded_rank_threads = 0,
              .crowded_rank_cores = 0};
  cpu_set_t any_rank;
  CPU_ZERO(&any_rank);
  for (const RankUse& rank : ranks) {
    CPU_OR(&any_rank, &any_rank, &rank.cpus);
    use.threads += rank.threads;
    const int cores = CPU_COUNT(&rank.cpus);
    if (rank.threads > cores &&
        rank.threads - cores > use.crowded_rank_threads - use.crowded_rank_cores) {
      use.crowded_rank_threads = rank.threads;
      use.crowded_rank_cores = cores;
    }
  }
  use.cores = CPU_COUNT(&any_rank);
  return use;
}

}  // namespace

Placement survey_placement(const dist::Communicator& comm, int threads) {
  const std::vector<NodeUse> uses = comm.all_gather(survey_node(comm.node(), threads));
  Placement placement;
  placement.ranks = comm.size();
  bool rank_crowded = false;
  bool node_crowded = false;
  for (const NodeUse& use : uses) {
    if (use.is_first_rank == 0) continue;
    ++placement.nodes;
    placement.threads += use.threads;
    placement.cores += use.cores;
    if (use.crowded_rank_threads > 0 && !rank_crowded) {
      rank_crowded = true;
      placement.warnings.push_back("a rank runs " + std::to_string(use.crowded_rank_threads) +
                                   " threads on " + std::to_string(use.crowded_rank_cores) +
                                   " core(s); bind ranks to more cores (mpirun --map-by slot:PE=" +
                                   std::to_string(use.crowded_rank_threads) +
                                   " --bind-to core) or lower --threads");
    } else if (use.threads > use.cores && !node_crowded) {
      node_crowded = true;
      placement.warnings.push_back("the ranks of a node run " + std::to_string(use.threads) +
                                   " threads on " + std::to_string(use.cores) +
                                   " core(s); start fewer ranks or lower --threads");
    }
  }
  return placement;
}

}  // namespace mla::launch
