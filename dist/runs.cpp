#include "dist/runs.h"

#include <algorithm>

#include "core/chunk_tree.h"
#include "dist/route.h"

namespace mla::dist {

Runs::Runs(const Batch& batch, const Partition& partition)
    : begins_(batch.requests.size()), batch_(sizes_of(batch)), partition_(partition) {
  for (const Piece& piece : partition.pieces) {
    begins_[piece.request].push_back(piece.chunks.begin);
  }
  for (std::size_t r = 0; r < begins_.size(); ++r) {
    num_chunks_.push_back(batch.num_chunks(batch.requests[r]));
    std::vector<std::int64_t>& begins = begins_[r];
    std::sort(begins.begin(), begins.end());
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  }
  for (const Piece& piece : partition.pieces) {
    const std::vector<std::int64_t>& begins = begins_[piece.request];
    const auto next = std::upper_bound(begins.begin(), begins.end(), piece.chunks.begin);
    const std::int64_t end = next == begins.end() ? num_chunks_[piece.request] : *next;
    if (piece.chunks.end != end) begins_[piece.request].clear();
  }
  batch_.chunk_tokens = 1;
  for (std::size_t r = 0; r < begins_.size(); ++r) {
    Request request = sizes_of(batch.requests[r]);
    request.context_len = begins_[r].empty() ? num_chunks_[r] : std::ssize(begins_[r]);
    batch_.requests.push_back(std::move(request));
  }
  for (Piece& piece : partition_.pieces) piece.chunks = run_of(piece.request, piece.chunks);
}

Range Runs::run_of(std::int64_t request, Range chunks) const {
  const std::vector<std::int64_t>& begins = begins_[request];
  if (begins.empty()) return chunks;
  const auto run = std::lower_bound(begins.begin(), begins.end(), chunks.begin) - begins.begin();
  return {run, run + 1};
}

WorkItem Runs::item(const WorkItem& item) const {
  WorkItem run = item;
  run.chunks = run_of(item.request, item.chunks);
  return run;
}

void Runs::name_parts(const WorkItem& item, kernels::OpenItem& open) const {
  check_nodes(item, open.nodes, maximal_nodes(item.chunks, num_chunks_[item.request]), false);
  if (begins_[item.request].empty()) return;
  const Range run = run_of(item.request, item.chunks);
  const TreeNode node = maximal_nodes(run, std::ssize(begins_[item.request])).front();
  for (NodePartial& part : open.nodes) part.node = node;
}

}  // namespace mla::dist
