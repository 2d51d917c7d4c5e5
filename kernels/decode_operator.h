#pragma once

#include <cstddef>
#include <cstdint>

#include "core/batch.h"

struct CUstream_st;

namespace mla::kernels {

/// How the tensors of a decode operator lie in memory: distances in elements. The query tokens of
/// all requests are numbered one after the other.
struct OperatorLayout {
  std::int64_t q_token_stride = 0;  ///< q: element (token, head, d), the last one contiguous
  std::int64_t q_head_stride = 0;
  std::int64_t kv_page_stride = 0;  ///< cache: element (page, slot, kv head, d), as in KvView
  std::int64_t kv_token_stride = 0;
  std::int64_t kv_head_stride = 0;
  std::int64_t block_table_stride = 0;  ///< entries between the block tables of two requests
  std::int64_t out_token_stride = 0;    ///< out: element (token, head, d)
  std::int64_t out_head_stride = 0;
  std::int64_t lse_token_stride = 0;  ///< lse: element (token, head)
  std::int64_t lse_head_stride = 0;

  friend bool operator==(const OperatorLayout&, const OperatorLayout&) = default;
};

/// All tensors without gaps: q [total_q, h_q, d_qk], cache [pages, page_block_size, h_kv, d_qk],
/// block tables [requests, blocks of the longest request], out [total_q, h_q, d_v], lse [total_q,
/// h_q].
OperatorLayout contiguous_layout(const Batch& batch);

/// The tensors of one run, in memory that the backend computes in: the host's or a GPU's.
struct OperatorTensors {
  const std::uint16_t* q = nullptr;
  const std::uint16_t* kv = nullptr;
  std::int64_t num_pages = 0;
  const std::int32_t* block_tables = nullptr;
  void* out = nullptr;
  float* lse = nullptr;
};

/// How an operator is to compute.
struct OperatorOptions {
  /// Bits that depend on nothing but a row's query and keys. Otherwise a backend may cut the keys
  /// as it likes, so that bits are those of a plan; CPU backends are exact in any case.
  bool exact = true;
  int threads = 0;  ///< of a CPU backend, 0: as many as OpenMP takes
  int device = 0;   ///< of a GPU backend: CUDA's number of the GPU
};

/// Memory that an operator works in, the caller's.
struct OperatorMemory {
  std::int64_t host_bytes = 0;    ///< aligned to 64
  std::int64_t device_bytes = 0;  ///< aligned to 256
};

/// cudaStream_t; CPU backends do not look at it.
using OperatorStream = CUstream_st*;

/// The decode operator for one batch on one node, straight from and to tensors of the caller's. It
/// is planned once and then run for any number of layers. Not thread-safe; distinct objects may be
/// used at the same time. `Backend::make_operator` makes one.
class DecodeOperator {
 public:
  DecodeOperator() = default;
  DecodeOperator(const DecodeOperator&) = delete;
  DecodeOperator& operator=(const DecodeOperator&) = delete;
  virtual ~DecodeOperator() = default;

  virtual OperatorMemory memory() const = 0;

  /// Gives the operator its memory, which must stay until the last run has ended, and on a GPU
  /// enqueues the upload of its plan on `stream`. Not while a stream is captured.
  virtual void bind(std::byte* host, std::byte* device, OperatorStream stream) = 0;

  /// Computes everything; on a GPU only enqueues that on `stream`, which may be being captured.
  /// Runs of one operator must follow one another, and its `bind`. Allocates nothing and
  /// synchronises nothing.
  /// @throws InvalidArgument for pages that the cache does not have (CPU backends only);
  ///         Unsupported for tensors that the kernel cannot read as they lie
  virtual void run(const OperatorTensors& tensors, OperatorStream stream) = 0;
};

}  // namespace mla::kernels
