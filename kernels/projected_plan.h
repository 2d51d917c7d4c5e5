#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/cost_model.h"
#include "core/range.h"
#include "core/split_plan.h"

namespace mla::kernels {

/// Runs of chunks, each a node of the canonical tree, that a call is cut into for several threads.
struct CallSegments {
  static constexpr std::int64_t kMost = 8;

  std::int64_t count = 0;
  std::array<std::int64_t, kMost + 1> offsets = {};  ///< [count + 1] of the call's chunks

  Range operator[](std::int64_t segment) const { return {offsets[segment], offsets[segment + 1]}; }
};

/// All of `num_chunks` in one segment.
CallSegments whole_call(std::int64_t num_chunks);

/// Each segment about half of what is left, so that threads that take them one by one end at about
/// the same time, and few partials are kept.
CallSegments halving_segments(std::int64_t num_chunks);

/// Widths of the projections around absorbed attention.
struct ProjectionDims {
  std::int64_t d_nope = 0;
  std::int64_t d_v_head = 0;
};

/// Some query tokens of one request.
struct ProjectedPart {
  std::int64_t request = 0;
  Range queries;

  friend bool operator==(const ProjectedPart&, const ProjectedPart&) = default;
};

/// What one thread owns at a time: it absorbs the queries, which stay in its workspace, and
/// projects the results; in between other threads may attend some of the rows. Some heads, which
/// share a KV head, of some tokens.
struct ProjectedTile {
  Range tokens;  ///< of total_q
  Range heads;
  Range parts;  ///< of ProjectedPlan::parts; in order, they are the tokens

  friend bool operator==(const ProjectedTile&, const ProjectedTile&) = default;
};

/// What a plan costs. FLOPs are of the slowest thread, bytes of all threads together.
struct ProjectedCost {
  double attention_flops = 0;   ///< as CostModel counts them
  double projection_flops = 0;  ///< of the thread that has the most attention
  double kv_bytes = 0;          ///< cache rows read, by each tile for itself
  double weight_bytes = 0;      ///< W_UK and W_UV, by each tile for itself
  double exposed_bytes = 0;  ///< of one thread: W_UK of its first tile, with nothing to hide behind

  /// One figure, FLOP-equivalents of one thread, to choose by.
  double total(int threads, const CostModel& cost) const;
};

/// How the threads of a process share the fused operator: a grid of `head_parts` times
/// `token_parts` threads, each of which owns its heads of its tokens. Nothing is merged. A thread
/// that is done helps others with their attention; all that an owner ever waits for is that its
/// helpers finish the rows they took.
struct ProjectedPlan {
  int head_parts = 1;
  int token_parts = 1;
  std::vector<ProjectedPart> parts;
  std::vector<ProjectedTile> tiles;          ///< by thread, in the order of their execution
  std::vector<std::int64_t> thread_offsets;  ///< [threads + 1] into `tiles`
  ProjectedCost cost;

  int threads() const { return head_parts * token_parts; }
};

/// The cheapest of all grids of `threads` threads. A pure function of sizes.
ProjectedPlan make_projected_plan(const Batch& batch, const ProjectionDims& dims, int threads,
                                  const CostModel& cost = {});

/// The plan for one grid: head_parts * token_parts threads, tiles of at most `tile_heads` heads.
ProjectedPlan make_projected_plan(const Batch& batch, const ProjectionDims& dims, int head_parts,
                                  int token_parts, std::int64_t tile_heads,
                                  const CostModel& cost = {});

/// One line for people.
std::string to_string(const ProjectedPlan& plan);

}  // namespace mla::kernels
