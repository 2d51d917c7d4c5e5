#include "proto/shard_data.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/generator.h"
#include "proto/batch_file.h"
#include "proto/safetensors.h"
#include "proto/sources.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kSeed = 42;

/// Two requests of 5 and 3 blocks that share page 6; page 1 is unused.
Batch generated_batch(std::int64_t h_kv = 2) {
  Batch batch{.shape = {.h_q = 4, .h_kv = h_kv, .d_qk = 24, .d_v = 16},
              .page_block_size = 16,
              .num_pages = 8,
              .chunk_tokens = 64,
              .softmax_scale = 1,
              .kv_cache = {},
              .requests = {}};
  batch.kv_cache.kind = TensorSource::Kind::kGenerated;
  batch.kv_cache.seed = kSeed;
  const auto request = [](std::string id, std::int64_t query_len, std::int64_t context_len,
                          std::vector<std::int32_t> table) {
    Request result{.custom_id = std::move(id),
                   .query_len = query_len,
                   .context_len = context_len,
                   .block_table = std::move(table),
                   .q = {}};
    result.q.kind = TensorSource::Kind::kGenerated;
    result.q.seed = kSeed;
    return result;
  };
  batch.requests.push_back(request("a", 2, 70, {6, 3, 0, 7, 5, 2147480000}));
  batch.requests.push_back(request("b", 1, 48, {6, 4, 2}));
  return batch;
}

std::vector<std::uint16_t> generated(GeneratedTensor tensor, std::int64_t block,
                                     std::int64_t elements) {
  std::vector<std::uint16_t> values(elements);
  generate_elements(kSeed, tensor, block, 0, DType::kBf16, values);
  return values;
}

std::vector<std::uint16_t> whole_cache(const Batch& batch) {
  std::vector<std::uint16_t> cache;
  for (std::int64_t page = 0; page < batch.num_pages; ++page) {
    const auto values = generated(GeneratedTensor::kKvCache, page, batch.page_elements());
    cache.insert(cache.end(), values.begin(), values.end());
  }
  return cache;
}

std::vector<std::uint16_t> whole_query(const Batch& batch, std::int64_t request) {
  return generated(GeneratedTensor::kQuery, request,
                   batch.requests[request].query_len * batch.shape.h_q * batch.shape.d_qk);
}

std::vector<std::byte> to_bytes(const std::vector<std::uint16_t>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

Batch inline_batch(Batch batch) {
  batch.kv_cache = {};
  batch.kv_cache.kind = TensorSource::Kind::kInline;
  batch.kv_cache.bytes = to_bytes(whole_cache(batch));
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    batch.requests[r].q = {};
    batch.requests[r].q.kind = TensorSource::Kind::kInline;
    batch.requests[r].q.bytes = to_bytes(whole_query(batch, static_cast<std::int64_t>(r)));
  }
  return batch;
}

/// The batch with its tensors in t.safetensors in `folder`.
Batch safetensors_batch(Batch batch, const TempDir& folder) {
  const MlaShape& shape = batch.shape;
  std::vector<std::int64_t> kv_shape{batch.num_pages, batch.page_block_size, shape.h_kv,
                                     shape.d_qk};
  if (shape.h_kv == 1) kv_shape.erase(kv_shape.begin() + 2);
  std::vector<TensorSpec> specs{{"kv", "BF16", kv_shape}};
  const auto use = [](TensorSource& source, const std::string& tensor) {
    source = {};
    source.kind = TensorSource::Kind::kSafetensors;
    source.file = "t.safetensors";
    source.tensor = tensor;
  };
  for (const Request& request : batch.requests) {
    specs.push_back({"q." + request.custom_id, "BF16", {request.query_len, shape.h_q, shape.d_qk}});
  }
  SafetensorsWriter writer(folder / "t.safetensors", specs);
  writer.write(to_bytes(whole_cache(batch)));
  for (std::size_t r = 0; r < batch.requests.size(); ++r) {
    writer.write(to_bytes(whole_query(batch, static_cast<std::int64_t>(r))));
    use(batch.requests[r].q, "q." + batch.requests[r].custom_id);
  }
  writer.commit();
  use(batch.kv_cache, "kv");
  return batch;
}

/// Every row and every query that the pieces may read is what generate_elements says.
void expect_generated_values(const Batch& batch, const ShardData& shard,
                             std::span<const Piece> pieces) {
  const MlaShape& shape = batch.shape;
  const auto row_bytes = static_cast<std::size_t>(shape.d_qk * 2);
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const auto piece = static_cast<std::int64_t>(p);
    const Request& request = batch.requests[pieces[p].request];
    const std::int64_t first = pieces[p].chunks.begin * batch.chunk_tokens;
    const std::int64_t last =
        std::min(request.context_len, pieces[p].chunks.end * batch.chunk_tokens);
    for (std::int64_t token = first; token < last; ++token) {
      const auto page =
          generated(GeneratedTensor::kKvCache, request.block_table[token / batch.page_block_size],
                    batch.page_elements());
      for (std::int64_t head = 0; head < shape.h_kv; ++head) {
        const std::int64_t slot = token % batch.page_block_size;
        EXPECT_EQ(std::memcmp(shard.kv().row(shard.block_table(piece), token, head),
                              page.data() + (slot * shape.h_kv + head) * shape.d_qk, row_bytes),
                  0)
            << "token " << token << " head " << head;
      }
    }
    const auto q = whole_query(batch, pieces[p].request);
    const QueryView view = shard.query(piece);
    for (std::int64_t j = 0; j < request.query_len; ++j) {
      for (std::int64_t h = 0; h < pieces[p].heads.size(); ++h) {
        EXPECT_EQ(std::memcmp(view.data + j * view.token_stride + h * view.head_stride,
                              q.data() + (j * shape.h_q + pieces[p].heads.begin + h) * shape.d_qk,
                              row_bytes),
                  0)
            << "query " << j << " head " << h;
      }
    }
  }
}

const std::vector<Piece> kWhole{{0, {0, 4}, {0, 2}}, {1, {0, 4}, {0, 1}}};
const std::vector<Piece> kTail{{0, {1, 3}, {1, 2}}};
const std::vector<Piece> kMixed{{0, {0, 2}, {0, 1}}, {0, {2, 4}, {0, 1}}, {1, {3, 4}, {0, 1}}};

TEST(ShardData, AgreesWithTheGeneratorWhateverTheSource) {
  const TempDir folder;
  for (const std::int64_t h_kv : {1, 2}) {
    const Batch made = generated_batch(h_kv);
    for (const Batch& batch : {made, inline_batch(made), safetensors_batch(made, folder)}) {
      ASSERT_NO_THROW(validate(batch, ValidateFor::kDecoding));
      for (const auto& pieces : {kWhole, kTail, kMixed, std::vector<Piece>{}}) {
        for (const int threads : {1, 3}) {
          const ShardData shard(batch, folder.path(), pieces, threads);
          expect_generated_values(batch, shard, pieces);
        }
      }
    }
  }
}

TEST(ShardData, MakesOnlyTheQueriesGeneratedForTheirPlaceInTheBatch) {
  Batch batch = generated_batch();
  std::swap(batch.requests[0], batch.requests[1]);
  const std::vector<Piece> pieces{{1, {0, 4}, {0, 2}}};
  expect_generated_values(batch, ShardData(batch, {}, pieces, 1), pieces);
}

TEST(ShardData, CountsSharedPagesOnce) {
  const Batch batch = generated_batch();
  const std::int64_t page_bytes = batch.page_elements() * 2;
  const std::int64_t q_bytes = (2 + 1) * 4 * 24 * 2;
  for (const Batch& any : {batch, inline_batch(batch)}) {
    EXPECT_EQ(ShardData(any, {}, kWhole, 1).resident_bytes(), 7 * page_bytes + q_bytes);
    EXPECT_EQ(ShardData(any, {}, kTail, 1).resident_bytes(), page_bytes + 2 * 2 * 24 * 2);
  }
}

TEST(ShardData, HoldsOnlyItsOwnPagesOfAnEnormousBatch) {
  Batch batch = generated_batch();
  batch.num_pages = 2'000'000'000;
  batch.requests[0].block_table = {1'999'999'999, 3, 1'000'000'000, 7, 5};
  ASSERT_NO_THROW(validate(batch, ValidateFor::kDecoding));
  const std::vector<Piece> pieces{{0, {0, 4}, {0, 2}}};
  const ShardData shard(batch, {}, pieces, 2);
  EXPECT_LT(shard.resident_bytes(), 1 << 20);
  expect_generated_values(batch, shard, pieces);
}

TEST(ShardData, SaysWhenMemoryIsShort) {
  EXPECT_THAT(error_of([] { MappedMemory(std::int64_t{1} << 62, "generated cache pages"); }),
              HasSubstr("cannot allocate 4611686018427387904 bytes for generated cache pages"));
}

TEST(ShardData, NeedsSources) {
  Batch batch = generated_batch();
  batch.requests[1].q = {};
  EXPECT_THAT(error_of([&] { ShardData(batch, {}, kWhole, 1); }), HasSubstr("requests[1].q"));
  batch.kv_cache = {};
  EXPECT_THAT(error_of([&] { ShardData(batch, {}, kWhole, 1); }), HasSubstr("kv_cache: no source"));
}

TEST(CheckSources, NamesWhatDoesNotFit) {
  const TempDir folder;
  const Batch good = safetensors_batch(generated_batch(), folder);
  const auto check_sources = [&](const Batch& batch) {
    SourceFiles files(folder.path());
    files.check_cache(batch);
    for (const Request& request : batch.requests) files.check_query(batch, request);
  };
  EXPECT_NO_THROW(check_sources(good));
  EXPECT_NO_THROW(check_sources(generated_batch()));
  const auto error_with = [&](auto change) {
    Batch batch = good;
    change(batch);
    const std::string error = error_of([&] { check_sources(batch); });
    EXPECT_EQ(error_of([&] { ShardData(batch, folder.path(), kWhole, 1); }), error);
    return error;
  };
  EXPECT_THAT(error_with([](Batch& b) { b.kv_cache.file = "none"; }), HasSubstr("/none'"));
  EXPECT_THAT(error_with([](Batch& b) { b.requests[1].q.tensor = "q.c"; }),
              HasSubstr("t.safetensors': no tensor 'q.c'"));
  EXPECT_THAT(error_with([](Batch& b) { b.dtype = DType::kFp16; }),
              HasSubstr("tensor 'kv': BF16; expected F16"));
  EXPECT_THAT(error_with([](Batch& b) { b.num_pages = 9; }),
              HasSubstr("tensor 'kv': shape [8, 16, 2, 24]; expected [9, 16, 2, 24]"));
  EXPECT_THAT(error_with([](Batch& b) { b.requests[0].query_len = 3; }),
              HasSubstr("tensor 'q.a': shape [2, 4, 24]; expected [3, 4, 24]"));
}

TEST(HashOfInput, SeesThatAFileChanged) {
  const TempDir folder;
  const Batch batch = safetensors_batch(generated_batch(), folder);
  const std::uint64_t hash = hash_of_input(batch, folder.path());
  EXPECT_EQ(hash, hash_of_input(batch, folder.path()));
  std::filesystem::last_write_time(
      folder / "t.safetensors",
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_NE(hash, hash_of_input(batch, folder.path()));
}

}  // namespace
}  // namespace mla::proto
