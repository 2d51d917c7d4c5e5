#include "launch/gpus.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace mla::launch {
namespace {

/// What a rank tells the others. Plain data.
struct GpuUse {
  int gpu = -1;  ///< -1: none
  int ranks_on_it = 0;
  int is_first_on_it = 0;
  char name[64] = {};
  char bus_id[32] = {};
};

template <std::size_t kSize>
void copy_text(const std::string& from, char (&to)[kSize]) {
  from.copy(to, kSize - 1);
}

GpuUse my_use(const dist::Communicator& node, const std::vector<kernels::Gpu>& gpus) {
  GpuUse use;
  if (!gpus.empty()) {
    use.gpu = node.rank() % static_cast<int>(gpus.size());
    copy_text(gpus[use.gpu].name, use.name);
    copy_text(gpus[use.gpu].bus_id, use.bus_id);
  }
  use.is_first_on_it = 1;
  const std::vector<GpuUse> neighbours = node.all_gather(use);
  for (int rank = 0; rank < node.size(); ++rank) {
    if (std::strcmp(neighbours[rank].bus_id, use.bus_id) != 0) continue;
    ++use.ranks_on_it;
    if (rank < node.rank()) use.is_first_on_it = 0;
  }
  return use;
}

}  // namespace

GpuPlacement place_on_gpus(const dist::Communicator& comm, const kernels::Backend& backend) {
  const GpuUse mine = my_use(comm.node(), backend.gpus());
  GpuPlacement placement{.gpu = std::max(0, mine.gpu), .ranks = {}, .warnings = {}};
  const std::vector<GpuUse> uses = comm.all_gather(mine);
  int shared = 0;
  int sharing = 0;
  for (std::size_t rank = 0; rank < uses.size(); ++rank) {
    const GpuUse& use = uses[rank];
    if (use.gpu < 0) continue;
    placement.ranks.push_back(fmt::format("rank {}: GPU {}, {}", rank, use.gpu, use.name));
    if (use.ranks_on_it < 2) continue;
    ++sharing;
    shared += use.is_first_on_it;
  }
  if (sharing > 0) {
    placement.warnings.push_back(
        fmt::format("{} ranks share {} GPU(s), which makes none of them faster; start one rank for "
                    "each GPU of a node (mpirun --map-by ppr:N:node)",
                    sharing, shared));
  }
  return placement;
}

}  // namespace mla::launch
