#include "proto/batch_file.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla::proto {
namespace {

using testing::HasSubstr;
using testing::Not;

Batch small_batch() {
  Batch batch{.shape = {.h_q = 2, .h_kv = 1, .d_qk = 24, .d_v = 16},
              .dtype = DType::kFp16,
              .out_dtype = DType::kFp32,
              .page_block_size = 16,
              .num_pages = 3,
              .chunk_tokens = 64,
              .causal = false,
              .softmax_scale = 0.1,
              .kv_cache = {},
              .requests = {}};
  batch.kv_cache.kind = TensorSource::Kind::kSafetensors;
  batch.kv_cache.file = "pages.safetensors";
  batch.kv_cache.tensor = "kv_cache";
  Request first{
      .custom_id = "größe", .query_len = 2, .context_len = 40, .block_table = {2, 0, 1}, .q = {}};
  first.q.kind = TensorSource::Kind::kInline;
  first.q.bytes.assign(2 * 2 * 24 * 2, std::byte{0x0a});
  Request second{.custom_id = "b", .query_len = 1, .context_len = 0, .block_table = {}, .q = {}};
  second.q.kind = TensorSource::Kind::kGenerated;
  second.q.seed = ~std::uint64_t{0};
  batch.requests = {first, second};
  return batch;
}

Batch decode(std::span<const std::byte> bytes) {
  return decode_batch(bytes, "batch 'memory'");
}

Batch parse_batch(const std::string& file, const std::string& text) {
  const TempDir folder;
  write_file(folder / file, text);
  return read_batch(folder / file);
}

TEST(BatchFile, ComesBackFromEveryForm) {
  const TempDir folder;
  const Batch batch = small_batch();
  for (const auto& [file, format] : {std::pair{"a.batch", BatchFormat::kBinary},
                                     {"a.txtpb", BatchFormat::kText},
                                     {"a.textproto", BatchFormat::kText},
                                     {"a.json", BatchFormat::kJson}}) {
    EXPECT_EQ(batch_format_of(folder / file), format);
    write_batch(batch, folder / file, format);
    EXPECT_EQ(read_batch(folder / file), batch) << file;
  }
  EXPECT_EQ(decode(encode_batch(batch)), batch);
}

TEST(BatchFile, KnowsTheBinaryFormByItsMagicWhateverItsName) {
  const TempDir folder;
  write_batch(small_batch(), folder / "a.json", BatchFormat::kBinary);
  EXPECT_EQ(read_batch(folder / "a.json"), small_batch());
}

TEST(BatchFile, FillsInWhatIsAbsent) {
  const Batch batch = parse_batch("a.txtpb", R"(
      header { shape { h_q: 16 d_qk: 64 d_v: 32 } num_pages: 2 }
      requests { context_len: 65 block_table: [1, 0] }
      requests { custom_id: "named" query_len: 3 })");
  EXPECT_EQ(batch.shape.h_kv, 1);
  EXPECT_EQ(batch.dtype, DType::kBf16);
  EXPECT_EQ(batch.out_dtype, DType::kBf16);
  EXPECT_EQ(batch.page_block_size, 64);
  EXPECT_EQ(batch.chunk_tokens, 512);
  EXPECT_TRUE(batch.causal);
  EXPECT_DOUBLE_EQ(batch.softmax_scale, 0.125);
  EXPECT_EQ(batch.kv_cache.kind, TensorSource::Kind::kNone);
  ASSERT_EQ(batch.requests.size(), 2u);
  EXPECT_EQ(batch.requests[0].custom_id, "request-0");
  EXPECT_EQ(batch.requests[0].query_len, 1);
  EXPECT_EQ(batch.requests[1].custom_id, "named");
  EXPECT_EQ(batch.requests[1].context_len, 0);
}

TEST(BatchFile, TakesTheDtypeOfTheResultsFromTheBatch) {
  EXPECT_EQ(parse_batch("a.txtpb", "header { dtype: FP16 }").out_dtype, DType::kFp16);
}

TEST(BatchFile, RoundsInlineValuesToTheDtype) {
  const Batch batch = parse_batch("a.json", R"({"header": {"dtype": "FP16",
      "kv_cache": {"inline": {"values": [1, -0.5, "NaN"]}}}})");
  const std::vector<std::byte>& bytes = batch.kv_cache.bytes;
  ASSERT_EQ(bytes.size(), 6u);
  EXPECT_EQ(bytes[1], std::byte{0x3c});
  EXPECT_EQ(bytes[3], std::byte{0xb8});
  EXPECT_EQ(bytes[5] & std::byte{0x7e}, std::byte{0x7e});
}

TEST(BatchFile, RefusesEveryTruncation) {
  const std::vector<std::byte> bytes = encode_batch(small_batch());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(decode(std::span(bytes).first(size)), FormatError) << size;
  }
}

TEST(BatchFile, RefusesEveryFlipOfAByte) {
  std::vector<std::byte> bytes = encode_batch(small_batch());
  for (std::byte& byte : bytes) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      byte ^= static_cast<std::byte>(flip);
      EXPECT_THROW(decode(bytes), FormatError) << &byte - bytes.data();
      byte ^= static_cast<std::byte>(flip);
    }
  }
}

TEST(BatchFile, RefusesFlippedBits) {
  const std::vector<std::byte> whole = encode_batch(small_batch());
  std::mt19937_64 random(1);
  for (int flip = 0; flip < 10'000; ++flip) {
    std::vector<std::byte> bytes = whole;
    for (int bits = flip % 3 + 1; bits > 0; --bits) {
      const std::size_t bit = random() % (8 * bytes.size());
      bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    }
    if (bytes == whole) continue;
    ASSERT_THROW(decode(bytes), FormatError) << flip;
  }
}

TEST(BatchFile, RefusesBytesAfterTheTrailer) {
  std::vector<std::byte> bytes = encode_batch(small_batch());
  bytes.push_back(std::byte{0});
  EXPECT_THROW(decode(bytes), FormatError);
}

TEST(BatchFile, SaysWhatAStrangeFileBeginsWith) {
  EXPECT_EQ(error_of([] {
              parse_batch("x.bin",
                          "\x7f"
                          "ELF etc.");
            }).substr(0, 13),
            "batch: file '");
  EXPECT_THAT(
      error_of([] {
        parse_batch("x.bin",
                    "\x7f"
                    "ELF etc.");
      }),
      HasSubstr("x.bin' begins with '.ELF etc'; expected the magic MESHMLAB, or a .txtpb or "
                ".json file"));
  EXPECT_THAT(error_of([] { parse_batch("x.bin", ""); }), HasSubstr("x.bin' is empty"));
}

TEST(BatchFile, SaysWhyAFileCannotBeRead) {
  const TempDir folder;
  EXPECT_THAT(error_of([&] { read_batch(folder / "none.json"); }),
              HasSubstr("No such file or directory"));
  EXPECT_EQ(exit_code_of([&] { read_batch(folder / "none.json"); }), ExitCode::kBadInput);
  EXPECT_THAT(error_of([&] { read_batch(folder.path()); }), HasSubstr("Is a directory"));
}

TEST(BatchFile, RefusesAnotherVersion) {
  EXPECT_THAT(error_of([] { parse_batch("a.txtpb", "header { version: 2 }"); }),
              HasSubstr("header.version: 2; expected 1"));
}

TEST(BatchFile, TellsLineAndColumnOfErrorsInText) {
  testing::internal::CaptureStderr();
  EXPECT_THAT(error_of([] { parse_batch("a.txtpb", "header {\n  colour: 3\n}"); }),
              HasSubstr("a.txtpb':2:9: Message type \"meshmla.Header\" has no field named"));
  EXPECT_THAT(error_of([] { parse_batch("a.txtpb", "header { dtype: INT4 }"); }),
              HasSubstr("INT4"));
  EXPECT_THAT(error_of([] { parse_batch("a.txtpb", "header {"); }), HasSubstr(":1:9: "));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(BatchFile, TellsThePlaceOfErrorsInJson) {
  testing::internal::CaptureStderr();
  EXPECT_THAT(error_of([] { parse_batch("a.json", "{\"header\":\n {,}}"); }),
              HasSubstr("line 2, column 3"));
  EXPECT_THAT(error_of([] { parse_batch("a.json", R"({"header": {"colour": 3}})"); }),
              HasSubstr("colour"));
  EXPECT_THAT(error_of([] { parse_batch("a.json", R"({"header": {"num_pages": "many"}})"); }),
              testing::AllOf(HasSubstr("many"), Not(HasSubstr("\n"))));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(BatchFile, RefusesInlineDataGivenTwice) {
  EXPECT_THAT(error_of([] {
                parse_batch("a.txtpb", "header { kv_cache { inline { data: \"ab\" values: 1 } } }");
              }),
              HasSubstr("both data and values"));
}

TEST(BatchFile, RefusesIdsThatAreNoText) {
  Batch batch = small_batch();
  batch.requests[0].custom_id = "\xff\xfe";
  EXPECT_THROW(encode_batch(batch), FormatError);
}

TEST(BatchFile, LeavesTheOldFileWhenItCannotWrite) {
  const TempDir folder;
  write_batch(small_batch(), folder / "a", BatchFormat::kBinary);
  Batch bad = small_batch();
  bad.requests[0].custom_id = "\xff";
  EXPECT_THROW(write_batch(bad, folder / "a", BatchFormat::kText), FormatError);
  EXPECT_EQ(read_batch(folder / "a"), small_batch());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_EQ(exit_code_of(
                [&] { write_batch(small_batch(), folder / "no/such/folder", BatchFormat::kText); }),
            ExitCode::kIo);
}

TEST(BatchFile, HashesDependOnTheBatch) {
  const TempDir folder;
  Batch batch = small_batch();
  batch.kv_cache = {};
  const std::uint64_t hash = hash_of_input(batch, folder.path());
  EXPECT_EQ(hash, hash_of_input(batch, folder.path()));
  batch.requests[1].context_len = 1;
  EXPECT_NE(hash, hash_of_input(batch, folder.path()));
}

#ifdef MLA_HAVE_RAPIDCHECK
TensorSource any_source() {
  TensorSource source;
  source.kind = *rc::gen::element(TensorSource::Kind::kNone, TensorSource::Kind::kSafetensors,
                                  TensorSource::Kind::kInline, TensorSource::Kind::kGenerated);
  const auto ascii = [&] {
    return *rc::gen::container<std::string>(rc::gen::inRange<char>(' ', '~'));
  };
  switch (source.kind) {
    case TensorSource::Kind::kNone:
      break;
    case TensorSource::Kind::kSafetensors:
      source.file = ascii();
      source.tensor = ascii();
      break;
    case TensorSource::Kind::kInline:
      for (const auto byte : *rc::gen::arbitrary<std::vector<std::uint8_t>>()) {
        source.bytes.push_back(std::byte{byte});
      }
      break;
    case TensorSource::Kind::kGenerated:
      source.seed = *rc::gen::arbitrary<std::uint64_t>();
      break;
  }
  return source;
}

Batch any_batch() {
  const auto size = [] { return *rc::gen::inRange<std::int64_t>(1, std::int64_t{1} << 40); };
  const auto dtype = [] { return *rc::gen::element(DType::kBf16, DType::kFp16, DType::kFp32); };
  Batch batch{.shape = {.h_q = size(), .h_kv = size(), .d_qk = size(), .d_v = size()},
              .dtype = dtype(),
              .out_dtype = dtype(),
              .page_block_size = size(),
              .num_pages = size() - 1,
              .chunk_tokens = size(),
              .causal = *rc::gen::arbitrary<bool>(),
              .softmax_scale = *rc::gen::arbitrary<double>(),
              .kv_cache = any_source(),
              .requests = {}};
  const int requests = *rc::gen::inRange(0, 4);
  for (int i = 0; i < requests; ++i) {
    batch.requests.push_back(
        {.custom_id = std::to_string(i) + *rc::gen::element("", " \"x\"\n", "ü"),
         .query_len = size(),
         .context_len = size() - 1,
         .block_table = *rc::gen::arbitrary<std::vector<std::int32_t>>(),
         .q = any_source()});
  }
  return batch;
}

RC_GTEST_PROP(BatchFile, AnyBatchComesBackFromEveryForm, ()) {
  const Batch batch = any_batch();
  RC_ASSERT(decode(encode_batch(batch)) == batch);
  const TempDir folder;
  write_batch(batch, folder / "a.txtpb", BatchFormat::kText);
  RC_ASSERT(read_batch(folder / "a.txtpb") == batch);
  write_batch(batch, folder / "a.json", BatchFormat::kJson);
  RC_ASSERT(read_batch(folder / "a.json") == batch);
}

RC_GTEST_PROP(BatchFile, AnyBytesAreABatchOrAnError, (const std::string& junk)) {
  const TempDir folder;
  for (const char* file : {"a.txtpb", "a.json", "a.batch"}) {
    write_file(folder / file, junk);
    try {
      read_batch(folder / file);
    } catch (const FormatError&) {
    }
  }
}
#endif

}  // namespace
}  // namespace mla::proto
