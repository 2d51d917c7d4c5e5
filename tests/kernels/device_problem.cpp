#include "tests/kernels/device_problem.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "core/chunk_tree.h"
#include "kernels/cuda/plan_memory.h"
#include "tests/kernels/device_fill.h"

namespace mla::test {

using namespace kernels::cuda;

namespace {

constexpr auto kPoison = std::byte{0xff};  // NaN in every type

}  // namespace

DeviceProblem::DeviceProblem(const ProblemLayout& layout, std::int64_t first_page)
    : layout_(layout), num_pages_(first_page + std::ssize(layout.pages())) {
  const ProblemSpec& spec = layout.spec();
  const std::int64_t rows = layout.total_queries() * spec.shape.h_q;
  q_ = DeviceBuffer(rows * layout.q_row_stride() * 2, "queries");
  kv_ = DeviceBuffer(num_pages_ * layout.view().page_stride * 2, "pages");
  std::vector<std::int32_t> tables;
  for (std::int64_t r = 0; r < layout.num_requests(); ++r) {
    table_begins_.push_back(std::ssize(tables));
    const std::int64_t blocks = ceil_div(spec.requests[r].context_len, spec.page_block_size);
    for (const std::int32_t page : layout.block_table(r)) {
      const bool used = std::ssize(tables) - table_begins_.back() < blocks;
      tables.push_back(used ? page + static_cast<std::int32_t>(first_page) : page);
    }
  }
  tables_ = DeviceBuffer(std::ssize(tables) * 4, "tables");
  stream_.upload(tables_.data(), tables.data(), tables_.bytes());
  out_ = DeviceBuffer(rows * spec.shape.d_v * 4, "out");
  lse_ = DeviceBuffer(rows * 4, "lse");
  stream_.synchronise();
}

DeviceProblem::DeviceProblem(const Problem& problem, std::int64_t first_page)
    : DeviceProblem(static_cast<const ProblemLayout&>(problem), first_page) {
  const std::int64_t first_byte = first_page * layout_.view().page_stride * 2;
  stream_.fill(kv_.data(), kPoison, first_byte);
  stream_.upload(kv_.data() + first_byte, problem.kv().data(), std::ssize(problem.kv()) * 2);
  stream_.upload(q_.data(), problem.q().data(), q_.bytes());
  stream_.synchronise();
}

DeviceProblem::DeviceProblem(const ProblemLayout& layout, MakeThere) : DeviceProblem(layout, 0) {
  const MlaShape& shape = layout.spec().shape;
  const RandomRows random = layout.spec().random_rows();
  const DeviceBuffer pages(num_pages_ * std::int64_t{sizeof(PageTokens)}, "contents of pages");
  stream_.upload(pages.data(), layout.pages().data(), pages.bytes());
  const CacheToFill cache{kv_.as<std::uint16_t>(),
                          pages.as<const PageTokens>(),
                          num_pages_,
                          layout.view(),
                          shape.h_kv,
                          shape.d_qk};
  check_cuda(launch_fill(cache, random, stream_.get()), "launch_fill");
  const QueriesToFill queries{q_.as<std::uint16_t>(), layout.total_queries() * shape.h_q,
                              layout.q_row_stride(), shape.d_qk};
  check_cuda(launch_fill(queries, random, stream_.get()), "launch_fill");
  stream_.synchronise();
}

DeviceItem DeviceProblem::item(std::int64_t request, std::int64_t kv_head, Range heads) const {
  const ProblemSpec& spec = layout_.spec();
  const std::int64_t first_head = kv_head * spec.shape.heads_per_kv() + heads.begin;
  const std::int64_t row = layout_.q_offset(request) * spec.shape.h_q + first_head;
  const RequestSizes& sizes = spec.requests[request];
  return {.q = row * layout_.q_row_stride(),
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
  for (std::int64_t r = 0; r < layout_.num_requests(); ++r) {
    for (std::int64_t head = 0; head < layout_.spec().shape.h_kv; ++head) {
      items.push_back(item(r, head, {0, layout_.spec().shape.heads_per_kv()}));
    }
  }
  return items;
}

DecodeArgs args_without_tensors(const ProblemLayout& layout, bool exact) {
  const ProblemSpec& spec = layout.spec();
  const MlaShape& shape = spec.shape;
  DecodeArgs args;
  args.q_token_stride = shape.h_q * layout.q_row_stride();
  args.q_head_stride = layout.q_row_stride();
  args.num_pages = std::ssize(layout.pages());
  args.page_block_size = spec.page_block_size;
  args.page_stride = layout.view().page_stride;
  args.token_stride = layout.view().token_stride;
  args.kv_head_stride = layout.view().head_stride;
  args.out_token_stride = shape.h_q * shape.d_v;
  args.out_head_stride = shape.d_v;
  args.lse_token_stride = shape.h_q;
  args.lse_head_stride = 1;
  args.h_kv = static_cast<std::int32_t>(shape.h_kv);
  args.d_qk = static_cast<std::int32_t>(shape.d_qk);
  args.d_v = static_cast<std::int32_t>(shape.d_v);
  args.out_type = OutType::kFp32;
  args.bf16 = spec.dtype == DType::kBf16;
  args.causal = spec.causal;
  args.exact = exact;
  args.scale_log2 = layout.scale_log2();
  return args;
}

DecodeArgs DeviceProblem::args(bool exact) const {
  DecodeArgs args = args_without_tensors(layout_, exact);
  args.q = q_.as<const std::uint16_t>();
  args.kv = kv_.as<const std::uint16_t>();
  args.num_pages = num_pages_;
  args.block_tables = tables_.as<const std::int32_t>();
  args.out = out_.data();
  args.lse = lse_.as<float>();
  return args;
}

void DeviceProblem::poison_results() const {
  stream_.fill(out_.data(), kPoison, out_.bytes());
  stream_.fill(lse_.data(), kPoison, lse_.bytes());
}

DeviceProblem::Executed DeviceProblem::execute(const DeviceRun& how,
                                               std::span<const DeviceItem> items) const {
  const PlanSizes sizes{layout_.spec().shape.d_v, layout_.spec().chunk_tokens, how.exact};
  KernelGeometry geometry = how.kernel->geometry(items, sizes, this_device());
  if (how.teams > 0) geometry.teams = how.teams;
  Executed executed{.plan = make_device_plan(items, sizes, geometry), .memory = {}};
  const PlanMemory layout = lay_out(executed.plan);
  std::vector<std::byte> tables(layout.table_bytes());
  write_tables(executed.plan, layout, tables.data());
  executed.memory = DeviceBuffer(layout.bytes, "plan");
  stream_.fill(executed.memory.data(), kPoison, executed.memory.bytes());
  stream_.fill(executed.memory.data() + layout.partials, std::byte{0}, layout.mail_bytes);
  stream_.upload(executed.memory.data(), tables.data(), std::ssize(tables));
  DecodeArgs arguments = args(how.exact);
  point_into(executed.plan, layout, executed.memory.data(), arguments);
  executed.partials = arguments.partials;

  const auto launch = [&] {
    check_cuda(how.kernel->launch(arguments, geometry, stream_.get()), how.kernel->name());
  };
  stream_.synchronise();
  if (how.as_graph) {
    const Graph graph(stream_, launch);
    for (int i = 0; i < how.runs; ++i) {
      poison_results();
      graph.launch(stream_);
    }
    stream_.synchronise();
  } else {
    for (int i = 0; i < how.runs; ++i) {
      poison_results();
      launch();
    }
  }

  const auto counters =
      download<std::uint32_t>(stream_, arguments.counters, executed.plan.counters());
  const auto left = static_cast<std::uint32_t>(executed.plan.merges_by_mail() ? how.runs : 0);
  if (std::any_of(counters.begin(), counters.end(), [=](auto count) { return count != left; })) {
    throw std::runtime_error("a run left counters that are not " + std::to_string(left));
  }
  return executed;
}

DeviceResults DeviceProblem::run(const DeviceRun& how, std::span<const DeviceItem> items) const {
  const auto [plan, memory, device_partials] = execute(how, items);
  DeviceResults results;
  results.results.out = download<float>(stream_, out_.data(), out_.bytes() / 4);
  results.results.lse = download<float>(stream_, lse_.data(), lse_.bytes() / 4);
  const auto partials = download<float>(stream_, device_partials, plan.node_offsets.back());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::int64_t rows = items[i].rows.size();
    const std::int64_t d_v = layout_.spec().shape.d_v;
    const std::int64_t floats = partial_floats(rows, d_v);
    std::vector<Nodes> nodes;
    for (std::int64_t at = plan.node_offsets[i]; at < plan.node_offsets[i + 1]; at += floats) {
      nodes.push_back({rows, d_v, 1, {partials.begin() + at, partials.begin() + at + floats}});
    }
    results.nodes.push_back(std::move(nodes));
  }
  return results;
}

}  // namespace mla::test
