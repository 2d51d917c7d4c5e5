#pragma once

#include <string>
#include <vector>

#include "dist/communicator.h"
#include "kernels/backend.h"

namespace mla::launch {

/// Which GPU each rank computes with.
struct GpuPlacement {
  int gpu = 0;                        ///< of this rank, among those that it sees
  std::vector<std::string> ranks;     ///< "rank 0: GPU 0, NVIDIA H200"; none without GPUs
  std::vector<std::string> warnings;  ///< one line for each trap: ranks that share a GPU
};

/// Deals the GPUs that `backend` can use to the ranks of each node in turn: a rank's place on its
/// node modulo the GPUs it sees. Nothing for a backend that computes on CPUs. Collective.
GpuPlacement place_on_gpus(const dist::Communicator& comm, const kernels::Backend& backend);

}  // namespace mla::launch
