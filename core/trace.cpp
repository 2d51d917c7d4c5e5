#include "core/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/random_stream.h"

namespace mla {
namespace {

/// Random indices; a seed means the same on every platform.
class Random {
 public:
  explicit Random(std::uint64_t seed) : stream_(seed) {}

  /// Evenly from [0, bound) but for a bias of bound / 2^64.
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(stream_[drawn_++] % static_cast<std::uint64_t>(bound));
  }

 private:
  RandomStream stream_;
  std::uint64_t drawn_ = 0;
};

/// The first `count` of a random permutation of [0, size) by Fisher and Yates.
template <class Index>
std::vector<Index> random_indices(std::int64_t size, std::int64_t count, Random& random) {
  std::vector<Index> indices(size);
  std::iota(indices.begin(), indices.end(), Index{0});
  for (std::int64_t i = 0; i < count; ++i) {
    std::swap(indices[i], indices[i + random.below(size - i)]);
  }
  indices.resize(count);
  return indices;
}

void check_option(const std::string& field, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw InvalidArgument(field, std::to_string(value), "at least " + std::to_string(least));
  }
}

std::vector<std::int64_t> choose_entries(std::int64_t entries, const TraceBatchOptions& options,
                                         Random& random) {
  const std::int64_t available = entries - options.first;
  if (options.requests > available) {
    throw InvalidArgument("requests", std::to_string(options.requests),
                          "at most " + std::to_string(std::max<std::int64_t>(0, available)) +
                              ", the trace entries from " + std::to_string(options.first));
  }
  std::vector<std::int64_t> chosen(options.requests);
  std::iota(chosen.begin(), chosen.end(), std::int64_t{0});
  if (options.sample) chosen = random_indices<std::int64_t>(available, options.requests, random);
  std::sort(chosen.begin(), chosen.end());
  for (std::int64_t& position : chosen) position += options.first;
  return chosen;
}

/// Numbers pages in the order of their first use; equal contents get one number.
class PageNumbers {
 public:
  explicit PageNumbers(std::int64_t page_block_size) : page_block_size_(page_block_size) {}

  std::vector<std::int32_t> block_table(const TraceEntry& entry) {
    std::vector<std::int32_t> table;
    const std::int64_t pages = ceil_div(entry.input_length, page_block_size_);
    table.reserve(pages);
    for (std::int64_t page = 0; page < pages; ++page) table.push_back(number(entry, page));
    return table;
  }

  std::int64_t count() const { return next_; }

 private:
  struct KeyHash {
    std::size_t operator()(const std::pair<std::int64_t, std::int64_t>& key) const {
      return static_cast<std::size_t>(key.first * kGoldenStep ^
                                      static_cast<std::uint64_t>(key.second));
    }
  };

  std::int32_t number(const TraceEntry& entry, std::int64_t page) {
    const Range tokens{page * page_block_size_, (page + 1) * page_block_size_};
    const Range blocks{tokens.begin / kTraceBlockTokens, ceil_div(tokens.end, kTraceBlockTokens)};
    const auto known_blocks = static_cast<std::int64_t>(entry.hash_ids.size());
    if (tokens.end > entry.input_length || blocks.end > known_blocks) return take_next();
    const auto [found, is_new] = number_of_.try_emplace({page, run_of(entry, blocks)}, 0);
    if (is_new) found->second = take_next();
    return found->second;
  }

  /// One number per sequence of hash ids.
  std::int64_t run_of(const TraceEntry& entry, Range blocks) {
    run_.assign(entry.hash_ids.begin() + blocks.begin, entry.hash_ids.begin() + blocks.end);
    return runs_.try_emplace(run_, static_cast<std::int64_t>(runs_.size())).first->second;
  }

  std::int32_t take_next() {
    if (next_ == std::numeric_limits<std::int32_t>::max()) {
      throw InvalidArgument("requests", "more than 2^31 pages in all", "fewer");
    }
    return static_cast<std::int32_t>(next_++);
  }

  std::int64_t page_block_size_;
  std::int64_t next_ = 0;
  std::vector<std::int64_t> run_;
  std::map<std::vector<std::int64_t>, std::int64_t> runs_;
  std::unordered_map<std::pair<std::int64_t, std::int64_t>, std::int32_t, KeyHash> number_of_;
};

void add_pages(std::span<const TraceEntry> trace, const std::vector<std::int64_t>& chosen,
               const TraceBatchOptions& options, Random& random, Batch& batch) {
  PageNumbers numbers(options.page_block_size);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    batch.requests[i].block_table = numbers.block_table(trace[chosen[i]]);
    batch.requests[i].q.kind = TensorSource::Kind::kGenerated;
    batch.requests[i].q.seed = options.seed;
  }
  batch.num_pages = numbers.count();
  batch.kv_cache.kind = TensorSource::Kind::kGenerated;
  batch.kv_cache.seed = options.seed;
  const auto shuffled = random_indices<std::int32_t>(batch.num_pages, batch.num_pages, random);
  for (Request& request : batch.requests) {
    for (std::int32_t& page : request.block_table) page = shuffled[page];
  }
}

}  // namespace

Batch batch_from_trace(std::span<const TraceEntry> trace, const TraceBatchOptions& options) {
  check_option("requests", options.requests, 1);
  check_option("first", options.first, 0);
  check_option("page_block_size", options.page_block_size, 1);
  check_option("chunk_tokens", options.chunk_tokens, 1);
  check_option("query_len", options.query_len, 1);
  check_option("shape.d_qk", options.shape.d_qk, 1);
  Random random(options.seed);
  const std::vector<std::int64_t> chosen =
      choose_entries(static_cast<std::int64_t>(trace.size()), options, random);

  Batch batch{.shape = options.shape,
              .dtype = options.dtype,
              .out_dtype = options.out_dtype,
              .page_block_size = options.page_block_size,
              .chunk_tokens = options.chunk_tokens,
              .softmax_scale = 1 / std::sqrt(static_cast<double>(options.shape.d_qk)),
              .kv_cache = {},
              .requests = {}};
  for (const std::int64_t position : chosen) {
    batch.requests.push_back({.custom_id = "trace-" + std::to_string(position),
                              .query_len = options.query_len,
                              .context_len = trace[position].input_length,
                              .block_table = {},
                              .q = {}});
  }
  if (!options.lengths_only) add_pages(trace, chosen, options, random, batch);
  return batch;
}

}  // namespace mla
