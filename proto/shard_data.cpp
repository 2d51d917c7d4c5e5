#include "proto/shard_data.h"

#include <exception>
#include <unordered_map>
#include <unordered_set>

#include "core/contiguous_view.h"
#include "core/error.h"
#include "core/generator.h"
#include "core/split_plan.h"
#include "proto/sources.h"

namespace mla::proto {
namespace {

const std::uint16_t* elements_of(const std::vector<std::byte>& bytes) {
  return reinterpret_cast<const std::uint16_t*>(bytes.data());
}

std::span<std::uint16_t> elements_of(const MappedMemory& memory, std::int64_t first,
                                     std::int64_t count) {
  return {static_cast<std::uint16_t*>(memory.data()) + first, static_cast<std::size_t>(count)};
}

[[noreturn]] void throw_no_source(const std::string& field) {
  throw FormatError(field, "no source", "safetensors, inline data or a generator");
}

}  // namespace

/// Fills a ShardData, tensor by tensor.
class ShardData::Builder {
 public:
  Builder(ShardData& shard, const Batch& batch, std::span<const Piece> pieces, int threads)
      : shard_(shard), batch_(batch), pieces_(pieces), threads_(threads) {}

  void build_kv() {
    shard_.kv_ = contiguous_view(batch_, nullptr);
    switch (batch_.kv_cache.kind) {
      case TensorSource::Kind::kNone:
        throw_no_source("kv_cache");
      case TensorSource::Kind::kSafetensors:
        map_or_read_kv();
        break;
      case TensorSource::Kind::kInline:
        shard_.kv_.data = elements_of(batch_.kv_cache.bytes);
        use_global_tables();
        break;
      case TensorSource::Kind::kGenerated:
        generate_kv();
        break;
    }
  }

  void build_queries() {
    const MlaShape& shape = batch_.shape;
    std::int64_t elements = 0;
    std::vector<std::int64_t> generated_first(pieces_.size());
    for (std::size_t p = 0; p < pieces_.size(); ++p) {
      generated_first[p] = elements;
      const std::int64_t size = request_of(p).query_len * pieces_[p].heads.size() * shape.d_qk;
      shard_.resident_bytes_ += size * size_of(batch_.dtype);
      if (request_of(p).q.kind == TensorSource::Kind::kGenerated) elements += size;
    }
    shard_.query_memory_ = MappedMemory(elements * size_of(batch_.dtype), "queries");
    for (std::size_t p = 0; p < pieces_.size(); ++p) {
      shard_.queries_.push_back(query(p, generated_first[p]));
    }
    generate_queries(generated_first);
  }

 private:
  const Request& request_of(std::size_t p) const { return batch_.requests[pieces_[p].request]; }

  Range blocks(std::size_t p) const { return blocks_of(batch_, request_of(p), pieces_[p].chunks); }

  std::int64_t count_pages() const {
    std::unordered_set<std::int32_t> pages;
    for (std::size_t p = 0; p < pieces_.size(); ++p) {
      const std::int32_t* const table = request_of(p).block_table.data();
      pages.insert(table + blocks(p).begin, table + blocks(p).end);
    }
    return static_cast<std::int64_t>(pages.size());
  }

  void use_global_tables() {
    for (std::size_t p = 0; p < pieces_.size(); ++p) {
      shard_.block_tables_.push_back(request_of(p).block_table.data());
    }
    add_resident_pages(count_pages());
  }

  /// A rank that reads nearly all of a file maps it. One that reads less copies its pages: a
  /// mapping would also make resident what the kernel has in its cache around them.
  void map_or_read_kv() {
    constexpr double kNearlyAll = 0.9;
    const std::uint16_t* const cache = shard_.files_->kv_cache(batch_);
    if (static_cast<double>(count_pages()) >= kNearlyAll * static_cast<double>(batch_.num_pages)) {
      shard_.kv_.data = cache;
      use_global_tables();
      return;
    }
    const SafetensorsFile& file = shard_.files_->open(batch_.kv_cache.file);
    make_kv(make_local_tables(), [&](std::int32_t page, std::span<std::uint16_t> to) {
      const std::span from(cache + page * batch_.page_elements(), to.size());
      file.read(std::as_bytes(from), std::as_writable_bytes(to).data());
    });
  }

  /// The pages that are made here, by local number, and who makes them.
  struct LocalPages {
    std::vector<std::int32_t> pages;
    std::vector<std::int64_t> thread_offsets;  // [threads + 1] into `pages`
  };

  /// Numbers the pages in the order in which threads first use them, one thread after the other: a
  /// thread makes the pages that it reads, so that they lie in the memory nearest to it.
  LocalPages make_local_tables() {
    const std::vector<std::int32_t*> tables = lay_out_tables();
    const SplitPlan plan = make_split_plan(batch_, pieces_, threads_);
    LocalPages local{.pages = {}, .thread_offsets = {0}};
    std::unordered_map<std::int32_t, std::int32_t> local_of;
    for (int thread = 0; thread < threads_; ++thread) {
      for (std::int64_t s = plan.thread_offsets[thread]; s < plan.thread_offsets[thread + 1]; ++s) {
        const WorkItem& item = plan.items[plan.segments[s].item];
        const Request& request = batch_.requests[item.request];
        const Range range = blocks_of(batch_, request, plan.segments[s].chunks);
        for (std::int64_t b = range.begin; b < range.end; ++b) {
          const std::int32_t page = request.block_table[b];
          const auto [entry, is_new] =
              local_of.try_emplace(page, static_cast<std::int32_t>(local.pages.size()));
          if (is_new) local.pages.push_back(page);
          tables[item.piece][b] = entry->second;
        }
      }
      local.thread_offsets.push_back(static_cast<std::int64_t>(local.pages.size()));
    }
    return local;
  }

  /// Room for a block table of each piece. It begins at block 0, but what lies before the piece's
  /// blocks is never touched.
  std::vector<std::int32_t*> lay_out_tables() {
    std::int64_t entries = 0;
    for (std::size_t p = 0; p < pieces_.size(); ++p) entries += blocks(p).end;
    shard_.table_memory_ = MappedMemory(entries * std::int64_t{sizeof(std::int32_t)}, "tables");
    auto* table = static_cast<std::int32_t*>(shard_.table_memory_.data());
    std::vector<std::int32_t*> tables;
    for (std::size_t p = 0; p < pieces_.size(); ++p) {
      tables.push_back(table);
      table += blocks(p).end;
    }
    shard_.block_tables_.assign(tables.begin(), tables.end());
    return tables;
  }

  void generate_kv() {
    make_kv(make_local_tables(), [&](std::int32_t page, std::span<std::uint16_t> to) {
      generate_elements(batch_.kv_cache.seed, GeneratedTensor::kKvCache, page, 0, batch_.dtype, to);
    });
  }

  /// Fills memory of our own with pages by fill(page, its elements).
  template <class Fill>
  void make_kv(const LocalPages& local, Fill fill) {
    const std::int64_t page_elements = batch_.page_elements();
    const auto num_pages = static_cast<std::int64_t>(local.pages.size());
    add_resident_pages(num_pages);
    shard_.kv_memory_ =
        MappedMemory(num_pages * page_elements * size_of(batch_.dtype), "cache pages");
    shard_.kv_.data = static_cast<const std::uint16_t*>(shard_.kv_memory_.data());
    std::exception_ptr error;
#pragma omp parallel for schedule(static, 1) num_threads(threads_)
    for (int thread = 0; thread < threads_; ++thread) {
      try {
        for (std::int64_t i = local.thread_offsets[thread]; i < local.thread_offsets[thread + 1];
             ++i) {
          fill(local.pages[i], elements_of(shard_.kv_memory_, i * page_elements, page_elements));
        }
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

  void add_resident_pages(std::int64_t pages) {
    shard_.resident_bytes_ += pages * batch_.page_elements() * size_of(batch_.dtype);
  }

  QueryView query(std::size_t p, std::int64_t generated_first) {
    const MlaShape& shape = batch_.shape;
    const Range heads = pieces_[p].heads;
    const Request& request = request_of(p);
    const std::int64_t all_heads = shape.h_q * shape.d_qk;
    const std::int64_t first = heads.begin * shape.d_qk;
    switch (request.q.kind) {
      case TensorSource::Kind::kNone:
        break;
      case TensorSource::Kind::kSafetensors:
        return {shard_.files_->query(batch_, request) + first, all_heads, shape.d_qk};
      case TensorSource::Kind::kInline:
        return {elements_of(request.q.bytes) + first, all_heads, shape.d_qk};
      case TensorSource::Kind::kGenerated:
        return {elements_of(shard_.query_memory_, generated_first, 0).data(),
                heads.size() * shape.d_qk, shape.d_qk};
    }
    throw_no_source("requests[" + std::to_string(pieces_[p].request) + "].q");
  }

  void generate_queries(const std::vector<std::int64_t>& generated_first) {
    const MlaShape& shape = batch_.shape;
    const auto num_pieces = static_cast<std::int64_t>(pieces_.size());
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (std::int64_t p = 0; p < num_pieces; ++p) {
      const Piece& piece = pieces_[p];
      const Request& request = batch_.requests[piece.request];
      if (request.q.kind != TensorSource::Kind::kGenerated) continue;
      const std::int64_t size = piece.heads.size() * shape.d_qk;
      for (std::int64_t j = 0; j < request.query_len; ++j) {
        generate_elements(request.q.seed, GeneratedTensor::kQuery, piece.request,
                          (j * shape.h_q + piece.heads.begin) * shape.d_qk, batch_.dtype,
                          elements_of(shard_.query_memory_, generated_first[p] + j * size, size));
      }
    }
  }

  ShardData& shard_;
  const Batch& batch_;
  std::span<const Piece> pieces_;
  int threads_;
};

ShardData::ShardData(const Batch& batch, const std::filesystem::path& base_dir,
                     std::span<const Piece> pieces, int threads)
    : files_(std::make_unique<SourceFiles>(base_dir)) {
  Builder builder(*this, batch, pieces, threads);
  builder.build_kv();
  builder.build_queries();
}

ShardData::ShardData(ShardData&&) noexcept = default;

ShardData::~ShardData() = default;

}  // namespace mla::proto
