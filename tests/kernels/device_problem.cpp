#include "tests/kernels/device_problem.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "core/chunk_tree.h"
#include "kernels/cuda/plan_memory.h"

namespace mla::test {

using namespace kernels::cuda;

namespace {

constexpr auto kPoison = std::byte{0xff};  // NaN in every type

template <class T>
std::vector<T> download(const Stream& stream, const void* from, std::int64_t count) {
  std::vector<T> to(static_cast<std::size_t>(count));
  stream.download(to.data(), from, count * std::int64_t{sizeof(T)});
  stream.synchronise();
  return to;
}

}  // namespace

DeviceProblem::DeviceProblem(const Problem& problem, std::int64_t first_page) : problem_(problem) {
  const ProblemSpec& spec = problem.spec();
  const kernels::DecodeParams params = problem.params(0, 0, {0, 1});
  const std::int64_t page_bytes = params.kv.page_stride * 2;
  q_row_stride_ = params.q_head_stride;
  num_pages_ = first_page + std::ssize(problem.kv()) / params.kv.page_stride;

  q_ = DeviceBuffer(std::ssize(problem.q()) * 2, "queries");
  stream_.upload(q_.data(), problem.q().data(), q_.bytes());
  kv_ = DeviceBuffer(num_pages_ * page_bytes, "pages");
  stream_.fill(kv_.data(), kPoison, first_page * page_bytes);
  stream_.upload(kv_.data() + first_page * page_bytes, problem.kv().data(),
                 std::ssize(problem.kv()) * 2);
  std::vector<std::int32_t> tables;
  for (std::int64_t r = 0; r < problem.num_requests(); ++r) {
    table_begins_.push_back(std::ssize(tables));
    const std::int64_t blocks = ceil_div(spec.requests[r].context_len, spec.page_block_size);
    for (const std::int32_t page : problem.block_table(r)) {
      const bool used = std::ssize(tables) - table_begins_.back() < blocks;
      tables.push_back(used ? page + static_cast<std::int32_t>(first_page) : page);
    }
  }
  tables_ = DeviceBuffer(std::ssize(tables) * 4, "tables");
  stream_.upload(tables_.data(), tables.data(), tables_.bytes());
  const std::int64_t rows = problem.total_queries() * spec.shape.h_q;
  out_ = DeviceBuffer(rows * spec.shape.d_v * 4, "out");
  lse_ = DeviceBuffer(rows * 4, "lse");
  stream_.synchronise();
}

DeviceItem DeviceProblem::item(std::int64_t request, std::int64_t kv_head, Range heads) const {
  const ProblemSpec& spec = problem_.spec();
  const std::int64_t first_head = kv_head * spec.shape.heads_per_kv() + heads.begin;
  const std::int64_t row = problem_.q_offset(request) * spec.shape.h_q + first_head;
  const RequestSizes& sizes = spec.requests[request];
  return {.q = row * q_row_stride_,
          .out = row * spec.shape.d_v,
          .lse = row,
          .block_table = table_begins_[request],
          .kv_head = kv_head,
          .heads = heads.size(),
          .query_len = sizes.query_len,
          .context_len = sizes.context_len,
          .rows = {0, sizes.query_len * heads.size()},
          .chunks = {0, ceil_div(sizes.context_len, spec.chunk_tokens)}};
}

std::vector<DeviceItem> DeviceProblem::items() const {
  std::vector<DeviceItem> items;
  for (std::int64_t r = 0; r < problem_.num_requests(); ++r) {
    for (std::int64_t head = 0; head < problem_.spec().shape.h_kv; ++head) {
      items.push_back(item(r, head, {0, problem_.spec().shape.heads_per_kv()}));
    }
  }
  return items;
}

DecodeArgs DeviceProblem::args(bool exact) const {
  const MlaShape& shape = problem_.spec().shape;
  const kernels::DecodeParams params = problem_.params(0, 0, {0, 1});
  DecodeArgs args;
  args.q = q_.as<const std::uint16_t>();
  args.q_token_stride = params.q_token_stride;
  args.q_head_stride = params.q_head_stride;
  args.kv = kv_.as<const std::uint16_t>();
  args.num_pages = num_pages_;
  args.page_block_size = params.kv.page_block_size;
  args.page_stride = params.kv.page_stride;
  args.token_stride = params.kv.token_stride;
  args.kv_head_stride = params.kv.head_stride;
  args.block_tables = tables_.as<const std::int32_t>();
  args.out = out_.data();
  args.out_token_stride = shape.h_q * shape.d_v;
  args.out_head_stride = shape.d_v;
  args.lse = lse_.as<float>();
  args.lse_token_stride = shape.h_q;
  args.lse_head_stride = 1;
  args.h_kv = static_cast<std::int32_t>(shape.h_kv);
  args.d_qk = static_cast<std::int32_t>(shape.d_qk);
  args.d_v = static_cast<std::int32_t>(shape.d_v);
  args.out_type = OutType::kFp32;
  args.bf16 = problem_.spec().dtype == DType::kBf16;
  args.causal = problem_.spec().causal;
  args.exact = exact;
  args.scale_log2 = params.scale_log2;
  return args;
}

DeviceResults DeviceProblem::run(const DeviceRun& how, std::span<const DeviceItem> items) const {
  const MlaShape& shape = problem_.spec().shape;
  const PlanSizes sizes{shape.d_v, problem_.spec().chunk_tokens, how.exact};
  KernelGeometry geometry = how.kernel->geometry(items, sizes, this_device());
  if (how.teams > 0) geometry.teams = how.teams;
  const DevicePlan plan = make_device_plan(items, sizes, geometry);
  const PlanMemory layout = lay_out(plan);
  std::vector<std::byte> tables(layout.table_bytes());
  write_tables(plan, layout, tables.data());
  const DeviceBuffer memory(layout.bytes, "plan");
  stream_.fill(memory.data(), kPoison, memory.bytes());
  stream_.upload(memory.data(), tables.data(), std::ssize(tables));
  DecodeArgs arguments = args(how.exact);
  point_into(plan, layout, memory.data(), arguments);

  const auto launch = [&] {
    check_cuda(how.kernel->launch(arguments, geometry, stream_.get()), how.kernel->name());
  };
  stream_.synchronise();
  if (how.as_graph) {
    const Graph graph(stream_, launch);
    for (int i = 0; i < how.runs; ++i) {
      stream_.fill(out_.data(), kPoison, out_.bytes());
      stream_.fill(lse_.data(), kPoison, lse_.bytes());
      graph.launch(stream_);
    }
    stream_.synchronise();
  } else {
    for (int i = 0; i < how.runs; ++i) {
      stream_.fill(out_.data(), kPoison, out_.bytes());
      stream_.fill(lse_.data(), kPoison, lse_.bytes());
      launch();
    }
  }

  DeviceResults results;
  results.results.out = download<float>(stream_, out_.data(), out_.bytes() / 4);
  results.results.lse = download<float>(stream_, lse_.data(), lse_.bytes() / 4);
  const auto counters = download<std::uint32_t>(stream_, arguments.counters, 2 * plan.counters());
  if (std::any_of(counters.begin(), counters.end(), [](auto count) { return count != 0; })) {
    throw std::runtime_error("a run left counters that are not zero");
  }
  const auto partials = download<float>(stream_, arguments.partials, plan.node_offsets.back());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::int64_t rows = items[i].rows.size();
    const std::int64_t floats = partial_floats(rows, shape.d_v);
    std::vector<Nodes> nodes;
    for (std::int64_t at = plan.node_offsets[i]; at < plan.node_offsets[i + 1]; at += floats) {
      nodes.push_back(
          {rows, shape.d_v, 1, {partials.begin() + at, partials.begin() + at + floats}});
    }
    results.nodes.push_back(std::move(nodes));
  }
  return results;
}

}  // namespace mla::test
