#include "proto/result_file.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/file_io.h"
#include "proto/safetensors.h"
#include "tests/proto/results.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::HasSubstr;

Batch batch_of(int requests) {
  return journaled_batch(requests, "id/");
}

Result result_of(const Batch& batch, std::int64_t i) {
  Result result = journaled_result(batch, i);
  result.lse[0] = std::numeric_limits<float>::infinity();
  return result;
}

std::filesystem::path name_of(ResultFormat format) {
  return format == ResultFormat::kStream ? "r.results" : "r.safetensors";
}

class ResultFile : public testing::TestWithParam<ResultFormat> {
 protected:
  std::filesystem::path path() const { return folder_.path() / name_of(GetParam()); }

  void write(const Batch& batch, const std::map<std::int64_t, std::string>& failed) {
    ResultWriter writer(path(), GetParam(), batch, failed);
    for (std::size_t i = 0; i < batch.requests.size(); ++i) {
      const auto position = static_cast<std::int64_t>(i);
      if (!failed.contains(position)) writer.append(result_of(batch, position));
    }
    writer.commit();
  }

  TempDir folder_;
};

TEST_P(ResultFile, ComesBack) {
  const Batch batch = batch_of(3);
  write(batch, {});
  EXPECT_EQ(result_format_of(path()), GetParam());
  const ResultSet set = read_results(path());
  ASSERT_EQ(set.results.size(), 3u);
  for (std::int64_t i = 0; i < 3; ++i) EXPECT_EQ(set.results[i], result_of(batch, i));
  EXPECT_EQ(set.find("id/1"), &set.results[1]);
  EXPECT_EQ(set.find("id/3"), nullptr);
}

TEST_P(ResultFile, TellsWhichRequestsFailed) {
  const Batch batch = batch_of(5);
  write(batch, {{0, "page lost"}, {1, "page 7 of '\xff' is lost"}, {4, ""}});
  const ResultSet set = read_results(path());
  ASSERT_EQ(set.results.size(), 5u);
  EXPECT_EQ(set.results[0].error, "page lost");
  EXPECT_EQ(set.results[1].error, "page 7 of '?' is lost");
  EXPECT_EQ(set.results[1].query_len, 2);
  EXPECT_EQ(set.results[1].d_v, 16);
  EXPECT_TRUE(set.results[1].out.empty());
  EXPECT_EQ(set.results[2], result_of(batch, 2));
  EXPECT_NE(set.results[4].error, "");
}

TEST_P(ResultFile, HasTheSameBytesForTheSameResults) {
  const Batch batch = batch_of(3);
  write(batch, {{1, "lost"}});
  const std::vector<std::byte> first = read_bytes(path());
  write(batch, {{1, "lost"}});
  EXPECT_EQ(read_bytes(path()), first);
}

TEST_P(ResultFile, AppearsOnlyWhenCommitted) {
  const Batch batch = batch_of(2);
  {
    ResultWriter writer(path(), GetParam(), batch);
    writer.append(result_of(batch, 0));
    EXPECT_FALSE(std::filesystem::exists(path()));
    EXPECT_THROW(writer.commit(), InvalidArgument);
  }
  EXPECT_TRUE(folder_.empty());
}

TEST_P(ResultFile, TakesResultsInTheBatchsOrderOnly) {
  const Batch batch = batch_of(2);
  ResultWriter writer(path(), GetParam(), batch, {{1, "lost"}});
  EXPECT_THROW(writer.append(result_of(batch, 1)), InvalidArgument);
  Result short_one = result_of(batch, 0);
  short_one.lse.pop_back();
  EXPECT_THROW(writer.append(short_one), InvalidArgument);
  writer.append(result_of(batch, 0));
  EXPECT_THROW(writer.append(result_of(batch, 1)), InvalidArgument);
  writer.commit();
}

TEST_P(ResultFile, NoticesEveryFlippedByteOfItsData) {
  write(batch_of(2), {});
  std::vector<std::byte> bytes = read_bytes(path());
  std::size_t first = 0;
  if (GetParam() == ResultFormat::kSafetensors) {
    first = SafetensorsFile(path()).header().size() + 8;
  }
  for (std::size_t at = first; at < bytes.size(); ++at) {
    bytes[at] ^= std::byte{0x10};
    write_file(path(), bytes);
    EXPECT_THROW(read_results(path()), FormatError) << at;
    bytes[at] ^= std::byte{0x10};
  }
}

TEST_P(ResultFile, NoticesEveryTruncation) {
  write(batch_of(2), {});
  const std::vector<std::byte> bytes = read_bytes(path());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    write_file(path(), std::span(bytes).first(size));
    EXPECT_THROW(read_results(path()), FormatError) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, ResultFile,
                         testing::Values(ResultFormat::kStream, ResultFormat::kSafetensors),
                         [](const auto& form) {
                           return form.param == ResultFormat::kStream ? "Stream" : "Safetensors";
                         });

TEST(ResultTensors, NameTheRequestThatIsDamaged) {
  const TempDir folder;
  const Batch batch = batch_of(2);
  {
    ResultWriter writer(folder / "r.safetensors", ResultFormat::kSafetensors, batch);
    writer.append(result_of(batch, 0));
    writer.append(result_of(batch, 1));
    writer.commit();
  }
  std::int64_t at = 0;
  {
    const SafetensorsFile file(folder / "r.safetensors");
    at = 8 + static_cast<std::int64_t>(file.header().size()) + file.find("out.id/1")->bytes.begin;
  }
  std::vector<std::byte> bytes = read_bytes(folder / "r.safetensors");
  bytes[at] ^= std::byte{1};
  write_file(folder / "r.safetensors", bytes);
  EXPECT_THAT(error_of([&] { read_results(folder / "r.safetensors"); }),
              HasSubstr("result 'id/1': damaged"));
}

TEST(OutputPath, IsCheckedEarly) {
  const TempDir folder;
  EXPECT_NO_THROW(check_output_path(folder / "new"));
  EXPECT_NO_THROW(check_output_path("relative"));
  EXPECT_THAT(error_of([&] { check_output_path(folder / "none/x"); }),
              HasSubstr("No such file or directory"));
  EXPECT_THAT(error_of([&] { check_output_path(folder.path()); }), HasSubstr("Is a directory"));
  write_file(folder / "file", std::string());
  EXPECT_THAT(error_of([&] { check_output_path(folder / "file/x"); }), HasSubstr("ot a directory"));
  EXPECT_EQ(exit_code_of([&] { check_output_path(folder / "none/x"); }), ExitCode::kIo);
}

}  // namespace
}  // namespace mla::proto
