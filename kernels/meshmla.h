#ifndef MESHMLA_H
#define MESHMLA_H

/*
 * MeshMLA's decode operator of one node, for C and for whatever can call C.
 *
 *   out[t, h] = softmax(softmax_scale * q[t, h] . K^T) V      for every query token t and head h
 *
 * over a paged cache, whose rows of d_qk elements are the keys and whose first d_v elements are the
 * values (multi-head latent attention with absorbed projections). A plan is made from the lengths
 * of a batch, and then run for every layer:
 *
 *   mla_plan_create, mla_plan_workspace_bytes, mla_plan_bind, mla_plan_run ..., mla_plan_destroy
 *
 * Tensors are the caller's and lie where the backend computes: in host memory for CPU backends, in
 * the memory of the plan's GPU for GPU backends. docs/c-interface.md has a whole program.
 *
 * Errors. Functions return a status. Anything but MLA_OK leaves a line in mla_last_error() that
 * names the field, its value and what was expected; nothing was computed or enqueued then.
 * Threads. All functions may be called by any thread; calls with the same plan must not overlap.
 */

/* NOLINTBEGIN(modernize-deprecated-headers,modernize-redundant-void-arg,modernize-use-using,readability-identifier-naming)
 */

#include <stdint.h>

#if defined(_WIN32)
#define MLA_API
#else
#define MLA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mla_status {
  MLA_OK = 0,
  MLA_INVALID_ARGUMENT = 1, /* the caller's mistake */
  MLA_UNSUPPORTED = 2,      /* this build, machine or backend cannot do it */
  MLA_OUT_OF_MEMORY = 3,
  MLA_CUDA_ERROR = 4, /* a call into CUDA failed */
  MLA_INTERNAL_ERROR = 5
} mla_status;

typedef enum mla_dtype { MLA_BF16 = 1, MLA_FP16 = 2, MLA_FP32 = 3 } mla_dtype;

/*
 * MLA_EXACT: a row's bits depend on its query and its keys alone: not on the rest of the batch, the
 * page size or the threads. MLA_FAST: a backend may cut the keys as suits it; the bits are those of
 * the plan. CPU backends are exact in either case.
 */
typedef enum mla_combine { MLA_EXACT = 0, MLA_FAST = 1 } mla_combine;

/* What a plan is made for. Begin with all zeros: that is a default for whatever says so. */
typedef struct mla_plan_spec {
  int64_t struct_size; /* sizeof(mla_plan_spec): tells the library which version the caller knows */

  int64_t batch; /* requests, at least 1 */
  const int32_t*
      seqlens_k; /* [batch] host memory: cached tokens, the new ones included; 0 or more */
  const int32_t* q_offsets; /* [batch + 1] host memory, from 0: request r has the query tokens
                               [q_offsets[r], q_offsets[r + 1]), at least one */
  int64_t h_q;              /* query heads */
  int64_t h_kv;             /* heads of the cache, a divisor of h_q; 1 for MLA */
  int64_t d_qk;             /* elements of a query and of a cache row: d_v plus a multiple of 8 */
  int64_t d_v;              /* elements of a value, a multiple of 16 */
  int64_t page_block_size;  /* tokens per page, at least 1 */
  int64_t chunk_tokens;     /* keys per canonical chunk, a multiple of 64; 0: 512 */
  double softmax_scale;     /* 0: d_qk to the power of -1/2 */
  int32_t dtype;            /* mla_dtype of q and cache: MLA_BF16 or MLA_FP16 */
  int32_t out_dtype;        /* mla_dtype of out: dtype or MLA_FP32; 0: dtype */
  int32_t causal;           /* 1: of s_q query tokens, token j sees the keys
                               k < seqlen_k - (s_q - 1 - j); 0: all see all */
  int32_t combine;          /* mla_combine */
  int32_t threads;          /* CPU backends; 0: as many as OpenMP takes */
  int32_t device;           /* GPU backends: CUDA's number of the GPU */

  /* Strides in elements; 0: without gaps, in the order of the indices. The last index of q, cache
     and out is contiguous. A plan holds offsets made of them, so they are the same in each run. */
  int64_t q_token_stride; /* q[token, head, d] */
  int64_t q_head_stride;
  int64_t kv_page_stride; /* kv[page, slot, kv head, d] */
  int64_t kv_token_stride;
  int64_t kv_head_stride;
  int64_t block_table_stride; /* block_tables[request, block]; 0: blocks of the longest request */
  int64_t out_token_stride;   /* out[token, head, d] */
  int64_t out_head_stride;
  int64_t lse_token_stride; /* lse[token, head] */
  int64_t lse_head_stride;
} mla_plan_spec;

/*
 * The tensors of one run. They may differ from run to run. Read and written during the run only: on
 * a GPU, until the work that was enqueued has ended.
 */
typedef struct mla_operands {
  int64_t struct_size; /* sizeof(mla_operands) */

  const void* q;  /* [total_q, h_q, d_qk] */
  const void* kv; /* [num_pages, page_block_size, h_kv, d_qk] */
  int64_t num_pages;
  const int32_t* block_tables; /* [batch, blocks]: the page of each block of page_block_size tokens.
                                  Entries behind the last token are never read. CPU backends check
                                  the others; on a GPU they must be right */
  void* out;                   /* [total_q, h_q, d_v] of out_dtype; 0 where a row sees no key */
  float* lse;                  /* [total_q, h_q]: natural log of the sum of exp(scaled score);
                                  +infinity where a row sees no key */
} mla_operands;

typedef struct mla_plan mla_plan;

/* "0.1.0". */
MLA_API const char* mla_version(void);

/* The backends of this build with commas between them, the fastest first: "sm90,avx512,...". */
MLA_API const char* mla_backend_names(void);

/* MLA_OK if this machine can run the backend; else mla_last_error() says why it cannot. "auto" is
   the first that it can run: a GPU's if one is visible. */
MLA_API mla_status mla_backend_check(const char* backend);

/*
 * Makes a plan for `backend` (a name, or "auto": the first that can decode such a batch; see
 * mla_plan_backend). `spec` and its arrays are read here only. The
 * plan is the caller's, to be destroyed; on an error *plan is set to null.
 */
MLA_API mla_status mla_plan_create(const char* backend, const mla_plan_spec* spec, mla_plan** plan);

/* The name of the backend of `plan`; valid as long as the plan. */
MLA_API const char* mla_plan_backend(const mla_plan* plan);

/* Bytes of workspace that runs need: in host memory and in the memory of the plan's GPU, each may
   be 0. Either pointer may be null. */
MLA_API mla_status mla_plan_workspace_bytes(const mla_plan* plan, int64_t* host_bytes,
                                            int64_t* device_bytes);

/*
 * Gives the plan its workspace and, on a GPU, enqueues the upload of its tables on `stream`
 * (a cudaStream_t; null is the default stream; CPU backends do not look at it). To be called once
 * before the runs, and not while a stream is captured; runs on other streams must be made to wait
 * for it. The workspace is the caller's and must stay, untouched, until the last run has ended; it
 * may be null where 0 bytes are needed.
 * `host_workspace` is aligned to 64 bytes, `device_workspace` to 256.
 */
MLA_API mla_status mla_plan_bind(mla_plan* plan, void* host_workspace, void* device_workspace,
                                 void* stream);

/*
 * Computes the batch. CPU backends return when the results are there. On a GPU the work is enqueued
 * on `stream`, which may be being captured into a graph. Allocates nothing, synchronises nothing.
 * Runs of one plan share its workspace and must follow one another.
 */
MLA_API mla_status mla_plan_run(mla_plan* plan, const mla_operands* operands, void* stream);

/* Frees the plan, not the workspace; null is ignored. What it enqueued must have ended. */
MLA_API void mla_plan_destroy(mla_plan* plan);

/* One line about the last error in this thread; "" if there was none. Valid until the thread's next
   error. */
MLA_API const char* mla_last_error(void);

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-redundant-void-arg,modernize-use-using,readability-identifier-naming)
 */

#endif /* MESHMLA_H */
