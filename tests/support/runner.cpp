#include "tests/support/runner.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <stdexcept>

#include "core/split_plan.h"
#include "kernels/reference/oracle.h"

namespace mla::test {
namespace {

constexpr std::int64_t kCanaryBytes = 256;
constexpr auto kCanary = std::byte{0xa5};

/// Up to kMaxRowsPerItem rows of one (request, KV head).
struct Item {
  std::int64_t request;
  std::int64_t kv_head;
  Range rows;
};

std::vector<Item> items_of(const Problem& problem) {
  std::vector<Item> items;
  for (std::int64_t r = 0; r < problem.num_requests(); ++r) {
    for (std::int64_t head = 0; head < problem.spec().shape.h_kv; ++head) {
      for (std::int64_t row = 0; row < problem.rows(r); row += kMaxRowsPerItem) {
        items.push_back({r, head, {row, std::min(problem.rows(r), row + kMaxRowsPerItem)}});
      }
    }
  }
  return items;
}

/// Which of total_q * h_q output rows row `row` of an item is.
std::int64_t output_row(const Problem& problem, const Item& item, std::int64_t row) {
  const std::int64_t group = problem.spec().shape.heads_per_kv();
  const std::int64_t query = problem.q_offset(item.request) + row / group;
  return query * problem.spec().shape.h_q + item.kv_head * group + row % group;
}

/// Calls f(item) on OpenMP threads; the first exception goes on to the caller.
template <class F>
void for_each_item(const Problem& problem, F f) {
  const std::vector<Item> items = items_of(problem);
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < items.size(); ++i) {
    try {
      f(items[i]);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

std::vector<const kernels::HostBackend*>& added_backends() {
  static std::vector<const kernels::HostBackend*> list;
  return list;
}

void check_canary(std::span<const std::byte> bytes, const char* what) {
  if (std::any_of(bytes.begin(), bytes.end(), [](std::byte b) { return b != kCanary; })) {
    throw std::runtime_error(std::string("decode wrote beyond ") + what);
  }
}

}  // namespace

AlignedBytes::AlignedBytes(std::int64_t size)
    : storage_(new std::byte[size + 63]), begin_(storage_.get()), size_(size) {
  begin_ += -reinterpret_cast<std::uintptr_t>(begin_) & 63u;
}

bool add_backend(const kernels::HostBackend& backend) {
  added_backends().push_back(&backend);
  return true;
}

std::vector<const kernels::HostBackend*> usable_backends() {
  std::vector<const kernels::HostBackend*> usable = kernels::host_backends();
  usable.insert(usable.end(), added_backends().begin(), added_backends().end());
  std::erase_if(usable, [](const auto* backend) { return !backend->why_unavailable().empty(); });
  return usable;
}

std::string test_name(const kernels::HostBackend& backend) {
  std::string name(backend.name());
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

Nodes decode_nodes(const kernels::HostBackend& backend, const kernels::DecodeParams& params,
                   Range chunks) {
  Nodes nodes{.rows = params.rows.size(),
              .d_v = params.shape.d_v,
              .count = count_maximal_nodes(chunks, params.num_chunks()),
              .floats = {}};
  const std::int64_t floats = nodes.count * partial_floats(nodes.rows, nodes.d_v);
  constexpr std::int64_t kCanaryFloats = kCanaryBytes / 4;
  nodes.floats.assign(floats + 2 * kCanaryFloats, std::numeric_limits<float>::quiet_NaN());
  float* begin = nodes.floats.data() + kCanaryFloats;
  std::memset(nodes.floats.data(), static_cast<int>(kCanary), kCanaryBytes);
  std::memset(begin + floats, static_cast<int>(kCanary), kCanaryBytes);

  const std::int64_t bytes =
      backend.workspace_bytes(params.shape, params.chunk_tokens, params.context_len);
  const AlignedBytes workspace(bytes + kCanaryBytes);
  std::memset(workspace.data(), 0xff, bytes);  // NaN as floats, garbage as pointers
  std::memset(workspace.data() + bytes, static_cast<int>(kCanary), kCanaryBytes);
  backend.decode(params, chunks, begin, workspace.span().first(bytes));

  check_canary(workspace.span().subspan(bytes), "its workspace");
  const auto all = std::as_bytes(std::span(nodes.floats));
  check_canary(all.first(kCanaryBytes), "its nodes, before");
  check_canary(all.last(kCanaryBytes), "its nodes, after");
  nodes.floats.erase(nodes.floats.begin(), nodes.floats.begin() + kCanaryFloats);
  nodes.floats.resize(floats);
  return nodes;
}

Nodes decode_whole(const kernels::HostBackend& backend, const kernels::DecodeParams& params) {
  Nodes nodes = decode_nodes(backend, params, {0, params.num_chunks()});
  if (nodes.count == 0) {
    nodes.count = 1;
    nodes.floats.resize(partial_floats(nodes.rows, nodes.d_v));
    clear_partial(nodes[0]);
  }
  return nodes;
}

Results run_backend(const kernels::HostBackend& backend, const Problem& problem) {
  const MlaShape& shape = problem.spec().shape;
  const std::int64_t rows = problem.total_queries() * shape.h_q;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Results results{std::vector<float>(rows * shape.d_v, nan), std::vector<float>(rows, nan)};
  for_each_item(problem, [&](const Item& item) {
    Nodes nodes = decode_whole(backend, problem.params(item.request, item.kv_head, item.rows));
    for (std::int64_t i = 0; i < nodes.rows; ++i) {
      const std::int64_t row = output_row(problem, item, item.rows.begin + i);
      finalize_out(nodes[0], i, {0, shape.d_v}, &results.out[row * shape.d_v]);
      results.lse[row] = finalize_lse(nodes[0], i);
    }
  });
  return results;
}

ExactResults run_oracle(const Problem& problem) {
  const std::int64_t d_v = problem.spec().shape.d_v;
  const std::int64_t rows = problem.total_queries() * problem.spec().shape.h_q;
  ExactResults exact{std::vector<double>(rows * d_v), std::vector<double>(rows)};
  for_each_item(problem, [&](const Item& item) {
    std::vector<double> out(item.rows.size() * d_v);
    std::vector<double> lse(item.rows.size());
    kernels::oracle(problem.params(item.request, item.kv_head, item.rows), out.data(), lse.data());
    for (std::int64_t i = 0; i < item.rows.size(); ++i) {
      const std::int64_t row = output_row(problem, item, item.rows.begin + i);
      std::copy_n(&out[i * d_v], d_v, &exact.out[row * d_v]);
      exact.lse[row] = lse[i];
    }
  });
  return exact;
}

kernels::Comparison compare_results(const Results& results, const ExactResults& exact) {
  return kernels::compare(results.out, results.lse, exact.out, exact.lse);
}

}  // namespace mla::test
