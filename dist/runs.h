#pragma once

#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/partition.h"
#include "core/split_plan.h"
#include "kernels/node_decoder.h"

namespace mla::dist {

/// A partition seen in runs: all the chunks of a request that a rank has are one chunk, and its
/// partials one partial. So little has to travel where bits may depend on the partition. Requests
/// of which different heads are cut in different places stay in their chunks.
class Runs {
 public:
  /// `batch`: sizes are enough. Local.
  Runs(const Batch& batch, const Partition& partition);

  /// The runs as chunks, of one token each.
  const Batch& batch() const { return batch_; }
  const Partition& partition() const { return partition_; }

  /// One of this rank's items, with the run in place of its chunks.
  WorkItem item(const WorkItem& item) const;

  /// Makes the nodes of `open`, which belongs to `item`, parts of the node of the run.
  /// @throws MpiError unless they are the maximal nodes of the item
  void name_parts(const WorkItem& item, kernels::OpenItem& open) const;

 private:
  Range run_of(std::int64_t request, Range chunks) const;

  std::vector<std::int64_t> num_chunks_;           // of the requests, as they are
  std::vector<std::vector<std::int64_t>> begins_;  // of the runs of each; none: its chunks
  Batch batch_;
  Partition partition_;
};

}  // namespace mla::dist
