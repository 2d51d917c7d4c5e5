#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/model_weights.h"
#include "core/partition.h"
#include "core/result_sink.h"
#include "core/split_plan.h"
#include "dist/combine.h"
#include "dist/model/gather.h"
#include "dist/model/rank_context.h"
#include "kernels/linear.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// The fast combine of ranks that each have a run of the tokens of every sequence. A rank's share
/// of a row is the attention to its own tokens, normalised, with its log-sum-exp. Merging is linear
/// in it, so every rank multiplies its shares by W_UV first, and what travels is a few times
/// narrower, in bf16:
///
///   share of each rank     -> W_UV of all heads -> bf16 -> merged at the head's rank: values
///   [tokens, all heads, kv_lora_rank]   [tokens, all heads, v_head_dim]   [tokens, own heads, ...]
///
/// In the batch that travels a rank's run is one chunk, and tokens that the same ranks have rows
/// for are the queries of one request. So what comes out depends on the cut of the sequence into
/// runs, but neither on threads nor on what else is in a step.
class ProjectedPartials final : public ResultSink {
 public:
  /// `context` must outlive it.
  explicit ProjectedPartials(const RankContext& context);

  /// Plans a step. Collective over the group.
  /// @param tokens of each sequence
  /// @param sharers of each sequence: the group's ranks [0, sharers) have tokens of it
  void begin(std::span<const Range> tokens, std::span<const std::int64_t> sharers);

  /// Takes this rank's share of some rows; `item.request` is the sequence.
  void finish(const WorkItem& item, const PartialView& share) override;
  /// The same where shares are still in several nodes, which are merged in place.
  void finish_open(std::span<const WorkItem> items, std::span<const kernels::OpenItem> open);

  /// values (this rank's columns) <- the values of all tokens, once all shares are taken.
  /// Collective over the group.
  void combine(const MatrixView& kv_b, ColumnGather& values);

  /// Of the last combine.
  const CombineStats& stats() const { return combine_->stats(); }

  /// Of memory on one rank, at most.
  static std::int64_t buffer_bytes(const ModelConfig& config, const ModelLimits& limits);

 private:
  /// Where the rows of a head lie: that of place p is row `first + p * stride`. Heads of one rank
  /// lie together, by token, as they travel.
  struct HeadRows {
    std::int64_t first = 0;
    std::int64_t stride = 0;
  };

  void place_tokens(std::span<const Range> tokens, std::span<const std::int64_t> sharers);
  void plan_partition();
  void open_items();
  void project(const MatrixView& kv_b);

  const RankContext& context_;
  const AttentionConfig& config_;
  Batch wire_;
  Partition partition_;
  std::vector<std::int64_t> first_places_;    // of each sequence
  std::vector<std::int64_t> token_of_place_;  // tokens of many sharers come first
  std::vector<std::int64_t> request_places_;  // where each request of wire_ begins
  std::int64_t own_places_ = 0;               // those before it this rank has shares for
  std::vector<HeadRows> head_rows_;           // [all heads]

  AlignedBuffer<float> shares_;    // [places, all heads, kv_lora_rank]
  AlignedBuffer<float> m_log2_;    // [rows]
  AlignedBuffer<float> l_;         // [rows]
  AlignedBuffer<float> products_;  // [rows, v_head_dim]
  std::vector<kernels::LinearParams> layers_;
  std::vector<WorkItem> items_;
  std::vector<kernels::OpenItem> open_;
  std::optional<Combine> combine_;
};

}  // namespace mla::dist
