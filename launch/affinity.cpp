#include "launch/affinity.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include <omp.h>

#include "launch/topology.h"

namespace mla::launch {
namespace {

/// One rank's view, for its neighbours.
struct RankView {
  RankUse use;
  std::bitset<1024> numa_nodes;
};

struct NodeUse {
  int is_first_rank = 0;  // one rank of each node speaks for it
  int threads = 0;
  int cores = 0;
  int numa_nodes = 0;
  int knows_cores = 0;
  int crowded_rank_threads = 0;  // of the rank with the fewest cores for its threads
  int crowded_rank_cores = 0;
};

template <std::size_t kBits>
void add(std::bitset<kBits>& set, int number) {
  if (number >= 0 && static_cast<std::size_t>(number) < kBits) {
    set.set(static_cast<std::size_t>(number));
  }
}

template <std::size_t kBits>
int count(const std::bitset<kBits>& set) {
  return static_cast<int>(set.count());
}

RankView this_rank(int threads) {
  RankView view{.use = {.cores = {}, .threads = threads}, .numa_nodes = {}};
  for (const Core& core : this_topology().cores) add(view.use.cores, core.id);
  for (const int node : this_topology().numa_nodes) add(view.numa_nodes, node);
  return view;
}

std::vector<RankUse> ranks_of_node(const dist::Communicator& node, int threads) {
  return node.all_gather(this_rank(threads).use);
}

NodeUse survey_node(const dist::Communicator& node, int threads) {
  NodeUse use{.is_first_rank = node.rank() == 0 ? 1 : 0,
              .knows_cores = this_topology().knows_cores ? 1 : 0};
  RankView any_rank{};
  for (const RankView& rank : node.all_gather(this_rank(threads))) {
    any_rank.use.cores |= rank.use.cores;
    any_rank.numa_nodes |= rank.numa_nodes;
    use.threads += rank.use.threads;
    const int cores = count(rank.use.cores);
    if (rank.use.threads - cores > use.crowded_rank_threads - use.crowded_rank_cores) {
      use.crowded_rank_threads = rank.use.threads;
      use.crowded_rank_cores = cores;
    }
  }
  use.cores = count(any_rank.use.cores);
  use.numa_nodes = count(any_rank.numa_nodes);
  return use;
}

bool user_binds() {
  constexpr const char* kVariables[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY",
                                        "KMP_AFFINITY"};
  return std::any_of(std::begin(kVariables), std::end(kVariables),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

std::string threads_on_cores(int threads, int cores) {
  return std::to_string(threads) + " threads on " + std::to_string(cores) + " core(s)";
}

}  // namespace

int choose_threads(const dist::Communicator& comm, int requested) {
  const dist::Communicator node = comm.node();
  const std::vector<RankUse> ranks = ranks_of_node(node, 0);
  if (requested > 0) return requested;
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return omp_get_max_threads();
  return std::min(fair_threads(ranks, node.rank()), omp_get_thread_limit());
}

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
    placement.numa_nodes += use.numa_nodes;
    placement.knows_cores = placement.knows_cores && use.knows_cores != 0;
    if (use.crowded_rank_threads > 0 && !rank_crowded) {
      rank_crowded = true;
      placement.warnings.push_back(
          "a rank runs " + threads_on_cores(use.crowded_rank_threads, use.crowded_rank_cores) +
          "; bind ranks to more cores (mpirun --map-by slot:PE=" +
          std::to_string(use.crowded_rank_threads) + " --bind-to core) or lower --threads");
    } else if (use.threads > use.cores && !node_crowded) {
      node_crowded = true;
      placement.warnings.push_back("the ranks of a node run " +
                                   threads_on_cores(use.threads, use.cores) +
                                   "; start fewer ranks or lower --threads");
    }
  }
  return placement;
}

void bind_threads(const dist::Communicator& comm, int threads) {
  omp_set_max_active_levels(1);
  const dist::Communicator node = comm.node();
  const std::vector<RankUse> ranks = ranks_of_node(node, threads);
  if (user_binds()) return;
  const std::vector<int> places = cores_to_bind(ranks, node.rank());
  const auto bound = static_cast<int>(places.size());
  if (bound != threads) return;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < bound; ++thread) {
    bind_this_thread(this_topology().cores[places[thread]]);
  }
}

int fair_threads(const std::vector<RankUse>& ranks, std::size_t rank) {
  const auto& mine = ranks[rank].cores;
  const auto sharing = std::count_if(
      ranks.begin(), ranks.end(), [&](const RankUse& other) { return (other.cores & mine).any(); });
  return std::max(1, count(mine) / std::max(1, static_cast<int>(sharing)));
}

std::vector<int> cores_to_bind(const std::vector<RankUse>& ranks, std::size_t rank) {
  const auto& mine = ranks[rank].cores;
  const int cores = count(mine);
  int first = 0;
  int used = 0;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    if ((ranks[r].cores & mine).none()) continue;
    if (ranks[r].cores != mine) return {};
    if (r < rank) first += ranks[r].threads;
    used += ranks[r].threads;
  }
  if (used > cores || 2 * used <= cores) return {};
  std::vector<int> places(ranks[rank].threads);
  std::iota(places.begin(), places.end(), first);
  return places;
}

}  // namespace mla::launch
