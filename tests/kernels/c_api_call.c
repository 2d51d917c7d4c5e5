/* The C interface as C11 sees it: a request of 100 equal tokens, whose output is their value. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/meshmla.h"

enum { kHeads = 3, kRow = 80, kValue = 64, kTokens = 100, kPage = 64, kPages = 4 };

static const uint16_t kOne = 0x3f80; /* 1.0 in bf16 */

static mla_status run(mla_plan* plan, const mla_operands* operands) {
  int64_t host_bytes = 0;
  mla_status status = mla_plan_workspace_bytes(plan, &host_bytes, NULL);
  if (status != MLA_OK) return status;
  void* workspace = aligned_alloc(64, (size_t)((host_bytes + 63) / 64 * 64));
  status = mla_plan_bind(plan, workspace, NULL, NULL);
  if (status == MLA_OK) status = mla_plan_run(plan, operands, NULL);
  free(workspace);
  return status;
}

/* 0 if all is well, else the number of what is not. */
int mla_test_from_c(const char* backend);
int mla_test_from_c(const char* backend) {
  static uint16_t q[kHeads * kRow];
  static uint16_t kv[kPages * kPage * kRow];
  for (int i = 0; i < kHeads * kRow; ++i) q[i] = kOne;
  for (int i = 0; i < kPages * kPage * kRow; ++i) kv[i] = kOne;
  const int32_t seqlens_k[1] = {kTokens};
  const int32_t q_offsets[2] = {0, 1};
  const int32_t block_table[2] = {3, 1};
  float out[kHeads * kValue];
  float lse[kHeads];
  memset(out, 0xff, sizeof out);

  mla_plan_spec spec = {0};
  spec.struct_size = sizeof spec;
  spec.batch = 1;
  spec.seqlens_k = seqlens_k;
  spec.q_offsets = q_offsets;
  spec.h_q = kHeads;
  spec.h_kv = 1;
  spec.d_qk = kRow;
  spec.d_v = kValue;
  spec.page_block_size = kPage;
  spec.dtype = MLA_BF16;
  spec.out_dtype = MLA_FP32;
  spec.causal = 1;

  mla_plan* plan = NULL;
  if (mla_plan_create(backend, &spec, &plan) != MLA_OK) return 1;
  mla_operands operands = {0};
  operands.struct_size = sizeof operands;
  operands.q = q;
  operands.kv = kv;
  operands.num_pages = kPages;
  operands.block_tables = block_table;
  operands.out = out;
  operands.lse = lse;
  const mla_status status = run(plan, &operands);
  mla_plan_destroy(plan);
  if (status != MLA_OK) return 2;

  for (int i = 0; i < kHeads * kValue; ++i) {
    if (!(fabsf(out[i] - 1.0F) < 1e-3F)) return 3;
  }
  const float expected = sqrtf(kRow) + logf(kTokens);
  for (int i = 0; i < kHeads; ++i) {
    if (!(fabsf(lse[i] - expected) < 1e-3F)) return 4;
  }
  return 0;
}
