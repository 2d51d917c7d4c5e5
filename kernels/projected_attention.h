#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/batch.h"
#include "core/partial.h"
#include "kernels/backend.h"
#include "kernels/projected_decode.h"
#include "kernels/projected_plan.h"

namespace mla::kernels {

/// What a tile's owner keeps of it, for all threads that attend it.
struct TileMemory {
  std::uint16_t* rows;  ///< [token][head][d_qk]: absorbed queries, then o in their place
  float* segments;      ///< partials of the segments of the call that is cut
};

/// What a thread attends in.
struct AttentionScratch {
  float* partial;  ///< of a call
  std::span<std::byte> decode;
};

/// How far the attention of a tile is, whose tasks any thread may take.
struct alignas(64) TileProgress {
  std::atomic<bool> absorbed = false;
  std::atomic<std::int64_t> taken = 0;  ///< tasks; more than there are when nothing is left
  std::atomic<std::int64_t> done = 0;   ///< calls
  /// For the right one of any two subtrees that are to be merged: one of them is done.
  std::atomic<bool> half_done[CallSegments::kMost] = {};
};

/// Attention of the tiles of a plan, which threads share: calls of the backend for some rows of a
/// request, dealt out one by one. A tile's last call is cut into segments of chunks, so that no
/// thread has to wait long for another in the end. Whoever is the second to finish one of two
/// sibling subtrees merges them, as the canonical tree has it; so the bits do not depend on who
/// computes what.
class TileAttention {
 public:
  TileAttention(const Batch& batch, const ProjectedPlan& plan, const PackedProjections& weights,
                const HostBackend& backend, const ProjectedInputs& inputs,
                const ProjectedOutputs& outputs)
      : batch_(batch),
        plan_(plan),
        weights_(weights),
        backend_(backend),
        inputs_(inputs),
        outputs_(outputs) {}

  /// Calls that `tile` has; it is attended when as many are done.
  std::int64_t num_calls(const ProjectedTile& tile) const;

  /// Takes tasks of `tile`, whose queries are absorbed, for as long as there are any.
  void work(const ProjectedTile& tile, const TileMemory& owner, TileProgress& progress,
            const AttentionScratch& scratch) const;

 private:
  /// Some rows of a part. Rows are [token][head].
  struct Call {
    const ProjectedPart& part;
    Range rows;             ///< of the part
    std::int64_t part_row;  ///< where the part begins in the tile
    CallSegments segments;
  };

  template <class Visit>
  void for_each_call(const ProjectedTile& tile, Visit&& visit) const;
  std::int64_t num_tokens(const ProjectedTile& tile) const;
  std::span<const std::byte> next_weights(const ProjectedTile& tile,
                                          std::int64_t tokens_after) const;
  DecodeParams params_of(const Call& call, Range heads, const std::uint16_t* tile_rows) const;
  void finish(const ProjectedTile& tile, const Call& call, const PartialView& root,
              std::uint16_t* tile_rows) const;

  const Batch& batch_;
  const ProjectedPlan& plan_;
  const PackedProjections& weights_;
  const HostBackend& backend_;
  const ProjectedInputs& inputs_;
  const ProjectedOutputs& outputs_;
};

}  // namespace mla::kernels
