#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "core/kv_view.h"
#include "core/partial_fold.h"
#include "core/result_builder.h"
#include "core/split_plan.h"

namespace mla::kernels {

/// Where the tensors of one piece lie in this rank's memory.
struct PieceInputs {
  const std::int32_t* block_table = nullptr;  ///< valid for the blocks of the piece's chunks
  const std::uint16_t* q = nullptr;           ///< query 0, head `first_head`
  std::int64_t first_head = 0;                ///< of the piece
  std::int64_t q_token_stride = 0;            ///< elements
  std::int64_t q_head_stride = 0;             ///< elements
};

/// All tensors of one rank.
struct RankInputs {
  KvView kv;
  std::vector<PieceInputs> pieces;  ///< one per piece, in the order of the partition
};

/// Partials of an item that other ranks have chunks of: its maximal nodes, left to right.
struct OpenItem {
  std::int64_t item = 0;  ///< index into the decoder's items
  std::vector<NodePartial> nodes;
};

/// How a rank computes.
struct DecoderOptions {
  int threads = 1;    ///< of the CPU
  int gpu = 0;        ///< number of the rank's GPU among those its process sees
  bool exact = true;  ///< the same bits for any batch, ranks and threads; CPUs compute no other way
};

/// Computes one rank's pieces of a batch, on whatever the rank computes with. A backend makes it;
/// it owns the memory of the partials and may run again and again.
class NodeDecoder {
 public:
  NodeDecoder() = default;
  NodeDecoder(const NodeDecoder&) = delete;
  NodeDecoder& operator=(const NodeDecoder&) = delete;
  virtual ~NodeDecoder() = default;

  /// Plans anew, for lengths that have changed in the batch and for `pieces`, which may be others
  /// than those it was made with. Their tensors, `inputs`, must be what the decoder was made with:
  /// requests and heads of its pieces, and chunks of theirs. (CPUs, which read tensors where they
  /// lie, take any.) Keeps its memory where that is large enough. The arguments must outlive it.
  /// Local. @throws as the backend's `make_decoder`
  virtual void replan(std::span<const Piece> pieces, const RankInputs& inputs) = 0;

  /// `work_items(batch, pieces)`.
  virtual std::span<const WorkItem> items() const = 0;

  /// Computes everything. Items whose request lies wholly on this rank are finished into `results`;
  /// the others are returned, and their partials stay valid until the next run. `chunks_done` is
  /// raised by one for each chunk of an item, at the latest when all is done. Local.
  virtual const std::vector<OpenItem>& run(ResultBuilder& results,
                                           std::atomic<std::int64_t>* chunks_done = nullptr) = 0;
};

}  // namespace mla::kernels
