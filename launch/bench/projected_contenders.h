#pragma once

#include <cstdint>
#include <string>

#include "core/aligned_buffer.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "core/split_plan.h"
#include "kernels/local_decode.h"
#include "launch/bench/projected_layer.h"

namespace mla::launch::bench {

/// A way to compute a layer.
class ProjectedContender : public Contender {
 public:
  void prepare() override;
  kernels::Comparison check() const final;

 protected:
  explicit ProjectedContender(ProjectedLayer& layer);

  const ProjectedLayer& layer() const { return layer_; }
  const LayerTurn& turn() const { return turn_; }
  int threads() const { return layer_.point().threads; }
  std::uint16_t* out() { return out_.data(); }

  virtual float lse(std::int64_t request, std::int64_t row) const = 0;

 private:
  ProjectedLayer& layer_;
  LayerTurn turn_;
  AlignedBuffer<std::uint16_t> out_;  // [total_q, heads, d_v_head]
};

/// All three steps in one pass. The plan is made once.
class FusedContender final : public ProjectedContender {
 public:
  /// `layer` must outlive it.
  explicit FusedContender(ProjectedLayer& layer);

  std::string name() const override;
  void prepare() override;
  void run() override;

 private:
  float lse(std::int64_t request, std::int64_t row) const override;

  kernels::ProjectedPlan plan_;
  AlignedBuffer<std::byte> workspace_;
  AlignedBuffer<float> lse_;  // [total_q, heads]
};

/// Queries absorbed, decode as the engine runs it, values projected: each for the whole batch, with
/// its results in memory. The results of decode, which are apart for each request, are not copied:
/// each thread gathers the rows of a head in its cache and projects them together.
class StepsContender final : public ProjectedContender {
 public:
  /// `layer` must outlive it.
  explicit StepsContender(ProjectedLayer& layer);

  std::string name() const override;
  void prepare() override;
  void run() override;

 private:
  float lse(std::int64_t request, std::int64_t row) const override;
  kernels::RankInputs rank_inputs() const;
  void project();
  void project_tokens(std::int64_t head, Range tokens, std::byte* memory);
  std::int64_t bytes_per_thread() const;

  Partition partition_;
  SplitPlan plan_;
  ResultBuilder results_;
  kernels::LocalDecoder decoder_;
  AlignedBuffer<std::uint16_t> absorbed_;  // [total_q, heads, d_qk]
  AlignedBuffer<std::byte> memory_;        // [threads, bytes_per_thread()]
  kernels::RankInputs inputs_;
};

}  // namespace mla::launch::bench
