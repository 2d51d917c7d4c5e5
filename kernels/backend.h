#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/batch.h"
#include "core/chunk_tree.h"
#include "core/kv_view.h"
#include "core/partial.h"
#include "core/range.h"
#include "kernels/node_decoder.h"

namespace mla::kernels {

/// Raised whenever a change to a kernel, to the canonical tree or to how partials are merged
/// changes the bits of results: a job does not resume with results of another arithmetic.
inline constexpr int kArithmeticVersion = 3;

class DecodeOperator;
class ProjectionKernel;
struct LinearKernel;
struct OperatorLayout;
struct OperatorOptions;

/// Hands out more chunks to a kernel that has computed those it was asked for. So work is dealt out
/// in small pieces, which other threads may take instead, and folded in large ones.
class ChunkSupply {
 public:
  ChunkSupply() = default;
  ChunkSupply(const ChunkSupply&) = delete;
  ChunkSupply& operator=(const ChunkSupply&) = delete;

  /// The chunks before `end` are done. Those from there to the returned one are to be computed
  /// next; `end` itself if that was all.
  virtual std::int64_t extend(std::int64_t end) noexcept = 0;
  /// No chunk from here on will be handed out.
  virtual std::int64_t furthest() const noexcept = 0;
  /// Where nodes after the first go: room for one partial less than `max_fold_depth`.
  virtual float* other_nodes() const noexcept = 0;

 protected:
  ~ChunkSupply() = default;
};

/// Some query rows of one request that read one KV head, and the cache they read: what a kernel
/// needs to compute any chunk of it. Plain data; nothing is owned.
struct DecodeParams {
  MlaShape shape;
  std::int64_t chunk_tokens = kDefaultChunkTokens;
  float scale_log2 = 0;  ///< softmax_scale * log2 e

  KvView kv;
  const std::int32_t* block_table = nullptr;  ///< only the blocks of the chunks asked for are read
  std::int64_t kv_head = 0;
  std::int64_t context_len = 0;  ///< seqlen_k

  const std::uint16_t* q = nullptr;  ///< query 0, first head; elements of kv.dtype
  std::int64_t q_token_stride = 0;   ///< elements between query tokens
  std::int64_t q_head_stride = 0;    ///< elements between heads
  std::int64_t query_len = 1;        ///< s_q
  std::int64_t heads = 0;            ///< row = j * heads + (head - first head)
  Range rows;                        ///< the rows to compute, at most kMaxRowsPerItem
  std::int64_t q_zeros = 0;          ///< the first so many elements of all rows of q are 0
  bool causal = true;
  std::span<const std::byte> next;  ///< what is read after the call; may be prefetched
  ChunkSupply* more = nullptr;      ///< chunks to go on with; may be null

  std::atomic<std::int64_t>* chunks_done = nullptr;  ///< raised after each chunk; may be null

  std::int64_t num_chunks() const { return ceil_div(context_len, chunk_tokens); }
  /// Query row `row` (of `rows`), d_qk elements.
  const std::uint16_t* q_row(std::int64_t row) const {
    return q + row / heads * q_token_stride + row % heads * q_head_stride;
  }
  /// Keys [0, visible_end) are seen by query row `row`.
  std::int64_t visible_end(std::int64_t row) const {
    return causal ? context_len - (query_len - 1 - row / heads) : context_len;
  }
};

/// A GPU that this process sees.
struct Gpu {
  std::string name;
  std::string bus_id;  ///< on the PCI bus: the same for all processes of a node
};

/// One implementation of the decode operator, on CPUs or on GPUs. Stateless; all calls are
/// thread-safe.
class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  /// As given to --backend.
  virtual std::string_view name() const = 0;
  /// Why this machine cannot run it, as a clause ("the CPU lacks AVX512-BF16"); empty if it can.
  virtual std::string why_unavailable() const = 0;
  /// The GPUs that this process may choose from by DecoderOptions::gpu; none for a backend that
  /// computes on CPUs.
  virtual std::vector<Gpu> gpus() const { return {}; }

  /// Why it cannot decode batches of such sizes and types, as a clause; empty if it can. Only asked
  /// of a backend that is available.
  virtual std::string why_unsupported(const Batch& /*batch*/) const { return {}; }

  /// What computes `pieces` of `batch`. All arguments but the options must outlive it.
  /// @throws Unsupported if it cannot do what the batch or the options ask for, CudaError if a
  ///         GPU's memory is short.
  virtual std::unique_ptr<NodeDecoder> make_decoder(const Batch& batch,
                                                    std::span<const Piece> pieces,
                                                    const RankInputs& inputs,
                                                    const DecoderOptions& options) const = 0;

  /// The decode operator over tensors of the caller's, planned for `batch`, of whose requests only
  /// the lengths are read. `options` say on which GPU, or on how many threads.
  /// @throws Unsupported if it cannot do it, CudaError
  virtual std::unique_ptr<DecodeOperator> make_operator(const Batch& batch,
                                                        const OperatorLayout& layout,
                                                        const OperatorOptions& options) const = 0;
};

/// A backend that computes with the CPU's threads. All calls allocate nothing, print nothing and
/// throw nothing unless they say so.
class HostBackend : public Backend {
 public:
  std::unique_ptr<NodeDecoder> make_decoder(const Batch& batch, std::span<const Piece> pieces,
                                            const RankInputs& inputs,
                                            const DecoderOptions& options) const override;
  std::unique_ptr<DecodeOperator> make_operator(const Batch& batch, const OperatorLayout& layout,
                                                const OperatorOptions& options) const override;

  /// Bytes of scratch that `decode` needs for any request of at most `max_context_len` tokens, for
  /// one thread.
  virtual std::int64_t workspace_bytes(const MlaShape& shape, std::int64_t chunk_tokens,
                                       std::int64_t max_context_len) const = 0;

  /// Computes the chunks `chunks` of `params` and folds them along the canonical tree into their
  /// maximal nodes: partials of `params.rows.size()` rows, one after the other at `nodes`, each
  /// `partial_floats(rows, d_v)` floats, left to right. The result for a chunk depends on nothing
  /// but the chunk's keys and the query row. Goes on with the chunks that `params.more` hands out,
  /// if it is there; then the nodes are those of all chunks, the first at `nodes`, the others where
  /// `params.more` says.
  /// `workspace` is aligned to 64 bytes and no smaller than `workspace_bytes`.
  virtual void decode(const DecodeParams& params, Range chunks, float* nodes,
                      std::span<std::byte> workspace) const noexcept = 0;

  /// How this backend multiplies by per-head matrices of `dtype`, bf16 or fp16: fp32 in portable
  /// C++ unless it has a kernel of its own.
  virtual const ProjectionKernel& projection_kernel(DType dtype) const;

  /// How this backend computes linear layers: fp32 in portable C++ unless it has a kernel of its
  /// own.
  virtual const LinearKernel& linear_kernel() const;

  /// The instruction whose rate limits this backend for caches of `dtype`, as "vdpbf16ps zmm".
  virtual std::string_view product_instruction(DType dtype) const = 0;
  /// Executes about `count` of them on registers, as fast as one core can, and returns the FLOPs
  /// they did: what the machine's limit is measured with.
  virtual double run_products(DType dtype, std::int64_t count) const noexcept = 0;
};

/// All backends, the fastest first.
const std::vector<const Backend*>& backends();
/// Those of them that compute with the CPU.
const std::vector<const HostBackend*>& host_backends();

/// The backend called `name`; "auto" is the first that this machine can run.
/// @throws InvalidArgument for an unknown name, Unsupported for one this machine cannot run; both
///         list what there is.
const Backend& find_backend(std::string_view name);
/// The same for `batch`: "auto" is the first that this machine can run and that can decode it.
/// @throws Unsupported also for a backend that cannot decode `batch`
const Backend& find_backend(std::string_view name, const Batch& batch);
/// Likewise among those that compute with the CPU.
const HostBackend& find_host_backend(std::string_view name);

}  // namespace mla::kernels
