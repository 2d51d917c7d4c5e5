#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "core/build_info.h"
#include "core/error.h"
#include "kernels/backend.h"
#include "kernels/decode_operator.h"
#include "kernels/meshmla.h"

/// What C callers hold.
struct mla_plan {
  std::string backend;
  bool has_tokens;  ///< some request has cached tokens
  std::unique_ptr<mla::kernels::DecodeOperator> decode;
  bool bound = false;
};

namespace mla::kernels {
namespace {

thread_local std::array<char, 1024> last_error{};

mla_status fail(mla_status status, std::string_view line) {
  const std::size_t length = std::min(line.size(), last_error.size() - 1);
  std::copy_n(line.begin(), length, last_error.begin());
  last_error[length] = '\0';
  return status;
}

/// Calls `body`; what it throws becomes a status.
template <class Body>
mla_status guarded(Body&& body) noexcept {
  try {
    body();
    return MLA_OK;
  } catch (const Unsupported& e) {
    return fail(MLA_UNSUPPORTED, e.what());
  } catch (const NotCompiled& e) {
    return fail(MLA_UNSUPPORTED, e.what());
  } catch (const InvalidArgument& e) {
    return fail(MLA_INVALID_ARGUMENT, e.what());
  } catch (const FormatError& e) {
    return fail(MLA_INVALID_ARGUMENT, e.what());
  } catch (const CudaError& e) {
    return fail(MLA_CUDA_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return fail(MLA_OUT_OF_MEMORY, "memory: none left; expected some free");
  } catch (const std::exception& e) {
    return fail(MLA_INTERNAL_ERROR, e.what());
  } catch (...) {
    return fail(MLA_INTERNAL_ERROR, "unknown error");
  }
}

std::string indexed(const char* array, std::int64_t index) {
  return std::string(array) + "[" + std::to_string(index) + "]";
}

void check_pointer(const char* field, const void* pointer) {
  if (pointer == nullptr) throw InvalidArgument(field, "null", "a pointer");
}

void check_aligned(const char* field, const void* pointer, std::uintptr_t alignment) {
  check_pointer(field, pointer);
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    throw InvalidArgument(field, "a pointer that is not aligned",
                          "a multiple of " + std::to_string(alignment));
  }
}

void check_struct_size(const char* field, std::int64_t size, std::size_t known) {
  if (size == static_cast<std::int64_t>(known)) return;
  throw InvalidArgument(field, std::to_string(size),
                        std::to_string(known) + ", as the meshmla.h of library version " +
                            std::string(version()) + " has it");
}

void check_range(const char* field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  throw InvalidArgument(field, std::to_string(value),
                        std::to_string(least) + " to " + std::to_string(most));
}

DType dtype_of(const char* field, std::int32_t value) {
  check_range(field, value, MLA_BF16, MLA_FP32);
  return static_cast<DType>(value);
}

Request request_of(const mla_plan_spec& spec, std::int64_t r) {
  Request request;
  request.context_len = spec.seqlens_k[r];
  if (request.context_len < 0) {
    throw InvalidArgument(indexed("seqlens_k", r), std::to_string(request.context_len),
                          "0 or more");
  }
  request.query_len = std::int64_t{spec.q_offsets[r + 1]} - spec.q_offsets[r];
  if (request.query_len < 1) {
    throw InvalidArgument(
        indexed("q_offsets", r + 1), std::to_string(spec.q_offsets[r + 1]),
        "more than " + indexed("q_offsets", r) + ", which is " + std::to_string(spec.q_offsets[r]));
  }
  return request;
}

Batch batch_of(const mla_plan_spec& spec) {
  constexpr std::int64_t kMostRequests = std::int64_t{1} << 31;
  check_range("batch", spec.batch, 1, kMostRequests);
  check_pointer("seqlens_k", spec.seqlens_k);
  check_pointer("q_offsets", spec.q_offsets);
  Batch batch;
  batch.shape = {.h_q = spec.h_q, .h_kv = spec.h_kv, .d_qk = spec.d_qk, .d_v = spec.d_v};
  batch.dtype = dtype_of("dtype", spec.dtype);
  batch.out_dtype = spec.out_dtype == 0 ? batch.dtype : dtype_of("out_dtype", spec.out_dtype);
  batch.page_block_size = spec.page_block_size;
  if (spec.chunk_tokens != 0) batch.chunk_tokens = spec.chunk_tokens;
  check_range("causal", spec.causal, 0, 1);
  batch.causal = spec.causal == 1;
  batch.softmax_scale =
      spec.softmax_scale != 0
          ? spec.softmax_scale
          : 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(spec.d_qk, 1)));
  validate_sizes(batch);
  check_range("q_offsets[0]", spec.q_offsets[0], 0, 0);
  batch.requests.reserve(static_cast<std::size_t>(spec.batch));
  for (std::int64_t r = 0; r < spec.batch; ++r) batch.requests.push_back(request_of(spec, r));
  return batch;
}

/// A stride that the caller gave, or the one of a tensor without gaps.
void use_stride(const char* field, std::int64_t given, std::int64_t least, std::int64_t& stride) {
  if (given == 0) return;
  constexpr std::int64_t kMost = std::int64_t{1} << 50;
  check_range(field, given, least, kMost);
  stride = given;
}

OperatorLayout layout_of(const mla_plan_spec& spec, const Batch& batch) {
  OperatorLayout layout = contiguous_layout(batch);
  const std::int64_t longest_table = layout.block_table_stride;
  const MlaShape& shape = batch.shape;
  use_stride("q_token_stride", spec.q_token_stride, 1, layout.q_token_stride);
  use_stride("q_head_stride", spec.q_head_stride, 1, layout.q_head_stride);
  use_stride("kv_page_stride", spec.kv_page_stride, 1, layout.kv_page_stride);
  use_stride("kv_token_stride", spec.kv_token_stride, 1, layout.kv_token_stride);
  use_stride("kv_head_stride", spec.kv_head_stride, 1, layout.kv_head_stride);
  use_stride("block_table_stride", spec.block_table_stride, longest_table,
             layout.block_table_stride);
  use_stride("out_token_stride", spec.out_token_stride, shape.d_v, layout.out_token_stride);
  use_stride("out_head_stride", spec.out_head_stride, shape.d_v, layout.out_head_stride);
  use_stride("lse_token_stride", spec.lse_token_stride, 1, layout.lse_token_stride);
  use_stride("lse_head_stride", spec.lse_head_stride, 1, layout.lse_head_stride);
  return layout;
}

std::unique_ptr<mla_plan> make_plan(const char* backend_name, const mla_plan_spec& spec) {
  const Backend& backend = find_backend(backend_name);
  const Batch batch = batch_of(spec);
  check_range("combine", spec.combine, MLA_EXACT, MLA_FAST);
  constexpr std::int64_t kMostThreads = 4096;
  check_range("threads", spec.threads, 0, kMostThreads);
  check_range("device", spec.device, 0, std::numeric_limits<std::int32_t>::max());
  const bool has_tokens = std::any_of(batch.requests.begin(), batch.requests.end(),
                                      [](const Request& r) { return r.context_len > 0; });
  auto decode = backend.make_operator(
      batch, layout_of(spec, batch),
      {.exact = spec.combine == MLA_EXACT, .threads = spec.threads, .device = spec.device});
  return std::make_unique<mla_plan>(
      mla_plan{std::string(backend.name()), has_tokens, std::move(decode)});
}

void bind_plan(mla_plan& plan, void* host, void* device, void* stream) {
  constexpr std::uintptr_t kHostAlignment = 64;
  constexpr std::uintptr_t kDeviceAlignment = 256;
  const OperatorMemory memory = plan.decode->memory();
  if (memory.host_bytes > 0) check_aligned("host_workspace", host, kHostAlignment);
  if (memory.device_bytes > 0) check_aligned("device_workspace", device, kDeviceAlignment);
  plan.decode->bind(static_cast<std::byte*>(host), static_cast<std::byte*>(device),
                    static_cast<OperatorStream>(stream));
  plan.bound = true;
}

void run_plan(mla_plan& plan, const mla_operands& operands, void* stream) {
  check_struct_size("operands.struct_size", operands.struct_size, sizeof operands);
  if (!plan.bound) throw InvalidArgument("plan", "not bound", "mla_plan_bind to have been called");
  check_pointer("q", operands.q);
  if (plan.has_tokens) {
    check_pointer("kv", operands.kv);
    check_pointer("block_tables", operands.block_tables);
    check_range("num_pages", operands.num_pages, 1, std::numeric_limits<std::int32_t>::max());
  }
  check_pointer("out", operands.out);
  check_pointer("lse", operands.lse);
  plan.decode->run({.q = static_cast<const std::uint16_t*>(operands.q),
                    .kv = static_cast<const std::uint16_t*>(operands.kv),
                    .num_pages = operands.num_pages,
                    .block_tables = operands.block_tables,
                    .out = operands.out,
                    .lse = operands.lse},
                   static_cast<OperatorStream>(stream));
}

std::string names_of_backends() {
  std::string names;
  for (const Backend* backend : backends()) {
    if (!names.empty()) names += ',';
    names += backend->name();
  }
  return names;
}

}  // namespace
}  // namespace mla::kernels

using namespace mla::kernels;

const char* mla_version(void) {
  static const std::string text(mla::version());
  return text.c_str();
}

const char* mla_backend_names(void) {
  static const std::string names = names_of_backends();
  return names.c_str();
}

mla_status mla_backend_check(const char* backend) {
  return guarded([&] {
    check_pointer("backend", backend);
    find_backend(backend);
  });
}

mla_status mla_plan_create(const char* backend, const mla_plan_spec* spec, mla_plan** plan) {
  return guarded([&] {
    check_pointer("plan", plan);
    *plan = nullptr;
    check_pointer("backend", backend);
    check_pointer("spec", spec);
    check_struct_size("spec.struct_size", spec->struct_size, sizeof *spec);
    *plan = make_plan(backend, *spec).release();
  });
}

const char* mla_plan_backend(const mla_plan* plan) {
  return plan->backend.c_str();
}

mla_status mla_plan_workspace_bytes(const mla_plan* plan, int64_t* host_bytes,
                                    int64_t* device_bytes) {
  return guarded([&] {
    check_pointer("plan", plan);
    const OperatorMemory memory = plan->decode->memory();
    if (host_bytes != nullptr) *host_bytes = memory.host_bytes;
    if (device_bytes != nullptr) *device_bytes = memory.device_bytes;
  });
}

mla_status mla_plan_bind(mla_plan* plan, void* host_workspace, void* device_workspace,
                         void* stream) {
  return guarded([&] {
    check_pointer("plan", plan);
    bind_plan(*plan, host_workspace, device_workspace, stream);
  });
}

mla_status mla_plan_run(mla_plan* plan, const mla_operands* operands, void* stream) {
  return guarded([&] {
    check_pointer("plan", plan);
    check_pointer("operands", operands);
    run_plan(*plan, *operands, stream);
  });
}

void mla_plan_destroy(mla_plan* plan) {
  delete plan;
}

const char* mla_last_error(void) {
  return last_error.data();
}
