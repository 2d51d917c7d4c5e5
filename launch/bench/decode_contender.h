#pragma once

#include "core/partition.h"
#include "core/result_builder.h"
#include "core/split_plan.h"
#include "kernels/backend.h"
#include "launch/bench/contender.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// The decode operator of one node as the engine runs it: the point's batch cut over threads,
/// computed by a backend out of shuffled pages, folded over threads, finished into results. The
/// plan is made once.
class DecodeContender final : public Contender {
 public:
  /// Reads other pages of `pool` in each run, the same ones if `hot`. All must outlive it.
  DecodeContender(const Workload& workload, const Pool& pool, const kernels::HostBackend& backend,
                  bool hot);

  std::string name() const override { return std::string(backend_.name()); }
  void prepare() override;
  void run() override;
  kernels::Comparison check() const override;

 private:
  void choose_pages();
  RowResult read_row(std::int64_t request, std::int64_t row) const;

  const Workload& workload_;
  const kernels::HostBackend& backend_;
  bool hot_;
  PageDealer pages_;
  kernels::RankInputs inputs_;
  Partition partition_;
  SplitPlan plan_;
  ResultBuilder results_;
  kernels::LocalDecoder decoder_;
};

}  // namespace mla::launch::bench
