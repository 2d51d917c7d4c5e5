#pragma once

#include <map>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/partial_fold.h"
#include "core/result_sink.h"
#include "dist/route.h"

namespace mla::dist {

/// The partials of shared requests that are on this rank, by item. Their memory is not owned.
class HeldPartials {
 public:
  explicit HeldPartials(const Batch& batch) : batch_(batch) {}

  /// Nodes that are not here yet.
  void add(const WorkItem& item, std::span<const NodePartial> nodes);

  /// The nodes of an item, which are not held any more; none if there are none.
  std::vector<NodePartial> take(const WorkItem& item);

  /// Folds the nodes of each item into maximal ones, in place, on `threads` threads.
  void fold(int threads);

  /// Folds all, and finishes every item into `results`; then nothing is held.
  /// @throws MpiError unless the nodes of each item cover all its chunks once.
  void finish(int threads, ResultSink& results);

 private:
  struct Held {
    WorkItem item;
    std::vector<NodePartial> nodes;
  };

  std::int64_t num_chunks(const WorkItem& item) const;
  void fold_rows(const Held& held, Range rows, ResultSink* results) const;
  void fold_all(int threads, ResultSink* results);

  const Batch& batch_;
  std::map<ItemKey, Held> held_;
};

}  // namespace mla::dist
