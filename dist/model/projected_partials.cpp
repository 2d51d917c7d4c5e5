#include "dist/model/projected_partials.h"

#include <algorithm>
#include <numeric>

#include "core/chunk_tree.h"
#include "core/exact_math.h"
#include "core/partial_fold.h"

namespace mla::dist {
namespace {

/// Takes the merged rows of a rank's heads.
class ValueSink final : public ResultSink {
 public:
  ValueSink(std::span<const std::int64_t> request_places,
            std::span<const std::int64_t> token_of_place, std::int64_t first_head,
            ColumnGather& values)
      : request_places_(request_places),
        token_of_place_(token_of_place),
        first_head_(first_head),
        values_(values) {}

  void finish(const WorkItem& item, const PartialView& root) override {
    const std::int64_t heads = item.heads.size();
    for (std::int64_t r = 0; r < item.rows.size(); ++r) {
      const std::int64_t row = item.rows.begin + r;
      const std::int64_t token = token_of_place_[request_places_[item.request] + row / heads];
      const std::int64_t head = item.heads.begin + row % heads - first_head_;
      finalize_out(root, r, {0, root.d_v},
                   values_.local() + token * values_.stride() + head * root.d_v);
    }
  }

 private:
  std::span<const std::int64_t> request_places_;
  std::span<const std::int64_t> token_of_place_;
  std::int64_t first_head_;
  ColumnGather& values_;
};

/// Merges some rows of all nodes of an item into those of the first.
void merge_rows(const kernels::OpenItem& open, Range rows) {
  std::vector<NodePartial> nodes;
  for (const NodePartial& node : open.nodes) {
    const auto index = static_cast<std::int64_t>(nodes.size());
    nodes.push_back({{0, index}, rows_of(node.partial, rows)});
  }
  fold_partials(nodes, std::ssize(nodes));  // in a tree of their own, so that one is left
}

}  // namespace

ProjectedPartials::ProjectedPartials(const RankContext& context)
    : context_(context), config_(context.config.attention) {
  const std::int64_t rows = context.limits.max_tokens * config_.num_heads;
  shares_ = AlignedBuffer<float>(rows * config_.kv_lora_rank);
  m_log2_ = AlignedBuffer<float>(rows);
  l_ = AlignedBuffer<float>(rows);
  products_ = AlignedBuffer<float>(rows * config_.v_head_dim);
  wire_.shape = {.h_q = config_.num_heads, .h_kv = 1, .d_qk = 0, .d_v = config_.v_head_dim};
  wire_.chunk_tokens = 1;
}

std::int64_t ProjectedPartials::buffer_bytes(const ModelConfig& config, const ModelLimits& limits) {
  const AttentionConfig& a = config.attention;
  return limits.max_tokens * a.num_heads * (a.kv_lora_rank + a.v_head_dim + 2) * 4;
}

void ProjectedPartials::begin(std::span<const Range> tokens,
                              std::span<const std::int64_t> sharers) {
  combine_.reset();
  place_tokens(tokens, sharers);
  plan_partition();
  open_items();
  combine_.emplace(context_.group, wire_, partition_,
                   CombineSettings{.exchange = ExchangeKind::kP2p,
                                   .element = WireElement::kBf16,
                                   .threads = context_.threads});
}

/// Tokens of as many sharers lie together, those of many first: the ones that this rank has shares
/// for are a run from place 0.
void ProjectedPartials::place_tokens(std::span<const Range> tokens,
                                     std::span<const std::int64_t> sharers) {
  std::vector<std::size_t> order(tokens.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return sharers[a] > sharers[b]; });
  wire_.requests.clear();
  request_places_.clear();
  token_of_place_.clear();
  first_places_.resize(tokens.size());
  own_places_ = 0;
  for (const std::size_t s : order) {
    const std::int64_t place = std::ssize(token_of_place_);
    if (wire_.requests.empty() || wire_.requests.back().context_len != sharers[s]) {
      wire_.requests.push_back({.query_len = 0, .context_len = sharers[s]});
      request_places_.push_back(place);
    }
    wire_.requests.back().query_len += tokens[s].size();
    first_places_[s] = place;
    for (std::int64_t t = tokens[s].begin; t < tokens[s].end; ++t) token_of_place_.push_back(t);
    if (context_.group.rank() < sharers[s]) own_places_ = std::ssize(token_of_place_);
  }
}

/// A piece for each rank's run, cut by the ranks whose heads they are, which own them.
void ProjectedPartials::plan_partition() {
  const int ranks = context_.group.size();
  const auto requests = std::ssize(wire_.requests);
  partition_ = {.mode = {.kind = ShardMode::Kind::kKv}};
  const auto for_each_part = [&](std::int64_t request, auto add) {
    for (int owner = 0; owner < ranks; ++owner) {
      const Range heads = even_part(config_.num_heads, ranks, owner);
      if (!heads.empty()) add(request, heads, owner);
    }
  };
  for (std::int64_t r = 0; r < requests; ++r) {
    for_each_part(r, [&](std::int64_t request, Range heads, int owner) {
      partition_.ownerships.push_back({request, heads, owner});
    });
  }
  for (int rank = 0; rank < ranks; ++rank) {
    partition_.piece_offsets.push_back(std::ssize(partition_.pieces));
    for (std::int64_t r = 0; r < requests; ++r) {
      if (rank >= wire_.requests[r].context_len) break;
      for_each_part(r, [&](std::int64_t request, Range heads, int) {
        partition_.pieces.push_back({request, heads, {rank, rank + 1}});
      });
    }
  }
  partition_.piece_offsets.push_back(std::ssize(partition_.pieces));
}

/// Says where the products of this rank lie.
void ProjectedPartials::open_items() {
  const std::int64_t places = std::ssize(token_of_place_);
  head_rows_.clear();
  for (int owner = 0; owner < context_.group.size(); ++owner) {
    const Range heads = even_part(config_.num_heads, context_.group.size(), owner);
    for (std::int64_t h = 0; h < heads.size(); ++h) {
      head_rows_.push_back({places * heads.begin + h, heads.size()});
    }
  }
  items_ = work_items(wire_, partition_.pieces_of(context_.group.rank()));
  open_.clear();
  for (const WorkItem& item : items_) {
    const HeadRows& rows = head_rows_[item.heads.begin];
    const std::int64_t first =
        rows.first + request_places_[item.request] * rows.stride + item.rows.begin;
    const PartialView partial{m_log2_.data() + first, l_.data() + first,
                              products_.data() + first * config_.v_head_dim, item.rows.size(),
                              config_.v_head_dim};
    const auto nodes = maximal_nodes(item.chunks, wire_.num_chunks(wire_.requests[item.request]));
    open_.push_back({std::ssize(open_), {{nodes.front(), partial}}});
  }
}

void ProjectedPartials::finish(const WorkItem& item, const PartialView& share) {
  const std::int64_t heads = item.heads.size();
  const std::int64_t latent = config_.kv_lora_rank;
  for (std::int64_t r = 0; r < item.rows.size(); ++r) {
    const std::int64_t row = item.rows.begin + r;
    const std::int64_t place = first_places_[item.request] + row / heads;
    const std::int64_t head = item.heads.begin + row % heads;
    const std::int64_t at = head_rows_[head].first + place * head_rows_[head].stride;
    const bool is_empty = share.m_log2[r] == kEmptyM;
    m_log2_.data()[at] =
        is_empty ? kEmptyM : static_cast<float>(share.m_log2[r] + log2_exact(share.l[r]));
    l_.data()[at] = is_empty ? 0.0F : 1.0F;
    finalize_out(share, r, {0, latent},
                 shares_.data() + (place * config_.num_heads + head) * latent);
  }
}

void ProjectedPartials::finish_open(std::span<const WorkItem> items,
                                    std::span<const kernels::OpenItem> open) {
  constexpr std::int64_t kRowsPerTask = 8;
  for (const kernels::OpenItem& o : open) {
    const WorkItem& whole = items[o.item];
    const std::int64_t rows = whole.rows.size();
#pragma omp parallel for schedule(static) num_threads(context_.threads) if (rows > kRowsPerTask)
    for (std::int64_t row = 0; row < rows; row += kRowsPerTask) {
      const Range part{row, std::min(rows, row + kRowsPerTask)};
      merge_rows(o, part);
      WorkItem item = whole;
      item.rows = {whole.rows.begin + part.begin, whole.rows.begin + part.end};
      finish(item, rows_of(o.nodes.front().partial, part));
    }
  }
}

void ProjectedPartials::combine(const MatrixView& kv_b, ColumnGather& values) {
  project(kv_b);
  combine_->post(items_, open_);
  const std::int64_t first_head = context_.part(config_.num_heads).begin;
  ValueSink sink(request_places_, token_of_place_, first_head, values);
  combine_->finish(sink);
}

/// products[row of place and head] <- W_UV share
void ProjectedPartials::project(const MatrixView& kv_b) {
  const std::int64_t latent = config_.kv_lora_rank;
  layers_.clear();
  for (std::int64_t h = 0; h < config_.num_heads; ++h) {
    const Range outputs = value_rows(config_, h);
    layers_.push_back({.weights = kv_b,
                       .outputs = outputs,
                       .rows = own_places_,
                       .x = shares_.data() + h * latent,
                       .x_stride = config_.num_heads * latent,
                       .y = products_.data() + head_rows_[h].first * config_.v_head_dim,
                       .y_stride = head_rows_[h].stride * config_.v_head_dim});
  }
  context_.linear(layers_);
}

}  // namespace mla::dist
