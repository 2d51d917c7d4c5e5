#include "proto/safetensors.h"

#include <array>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + rest;
}

std::string file_of(const std::string& header, std::size_t data_bytes) {
  return with_length(header.size(), header + std::string(data_bytes, 'x'));
}

/// The error of reading `file`, "" if it is well-formed.
std::string error_of_file(const std::string& file) {
  const TempDir folder;
  write_file(folder / "t.safetensors", file);
  return error_of([&] { SafetensorsFile(folder / "t.safetensors"); });
}

std::string error_of_header(const std::string& header, std::size_t data_bytes = 8) {
  return error_of_file(file_of(header, data_bytes));
}

TEST(Safetensors, ReadsWhatItWrote) {
  const TempDir folder;
  const std::filesystem::path path = folder / "t.safetensors";
  SafetensorsWriter writer(path, {{"b", "BF16", {2, 1, 3}}, {"a", "F32", {}}, {"e", "U8", {0, 7}}},
                           {{"key", "välue"}});
  const std::array<float, 4> data{1, 2, 3, 4};
  writer.write(std::as_bytes(std::span(data)).first(5));
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.write(std::as_bytes(std::span(data)).subspan(5));
  writer.commit();

  const SafetensorsFile file(path);
  EXPECT_EQ(file.header().size() % 8, 0u);
  EXPECT_EQ(file.metadata().at("key"), "välue");
  ASSERT_NE(file.find("b"), nullptr);
  EXPECT_EQ(*file.find("b"), (TensorInfo{"b", "BF16", {2, 1, 3}, {0, 12}}));
  EXPECT_EQ(*file.find("a"), (TensorInfo{"a", "F32", {}, {12, 16}}));
  EXPECT_EQ(file.data(*file.find("e")).size(), 0u);
  EXPECT_EQ(file.find("c"), nullptr);
  float last = 0;
  std::memcpy(&last, file.data(*file.find("a")).data(), sizeof last);
  EXPECT_EQ(last, 4);
}

TEST(Safetensors, LeavesNothingWhenNotCommitted) {
  const TempDir folder;
  { SafetensorsWriter writer(folder / "t.safetensors", {{"a", "F32", {1}}}); }
  EXPECT_TRUE(folder.empty());
  SafetensorsWriter writer(folder / "t.safetensors", {{"a", "U8", {1}}});
  EXPECT_THROW(writer.commit(), InvalidArgument);
  EXPECT_THROW(writer.write(std::array<std::byte, 2>{}), InvalidArgument);
}

TEST(Safetensors, RefusesToWriteNonsense) {
  const TempDir folder;
  using Specs = std::vector<TensorSpec>;
  const std::filesystem::path path = folder / "t";
  EXPECT_THROW(SafetensorsWriter(path, Specs{{"a", "F33", {1}}}), InvalidArgument);
  EXPECT_THROW(SafetensorsWriter(path, Specs{{"a", "U8", {1}}, {"a", "U8", {1}}}), InvalidArgument);
  EXPECT_THROW(SafetensorsWriter(path, Specs{{"\xff", "U8", {1}}}), InvalidArgument);
  EXPECT_TRUE(folder.empty());
}

TEST(Safetensors, AcceptsTheWholeFormat) {
  EXPECT_EQ(error_of_header("{}", 0), "");
  EXPECT_EQ(error_of_header("{}    ", 0), "");
  EXPECT_EQ(error_of_header(R"({"__metadata__":{"a":"b"},
      "x":{"dtype":"I16","shape":[2,2],"data_offsets":[0,8],"more":[1]}})"),
            "");
  EXPECT_EQ(error_of_header(R"({"y":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},
      "x":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
      "z":{"dtype":"F64","shape":[3,0],"data_offsets":[4,4]}})"),
            "");
}

TEST(Safetensors, KnowsTheSizeOfEveryDtype) {
  EXPECT_EQ(safetensors_size_of("F8_E4M3"), 1);
  EXPECT_EQ(safetensors_size_of("BF16"), 2);
  EXPECT_EQ(safetensors_size_of("F32"), 4);
  EXPECT_EQ(safetensors_size_of("U64"), 8);
  EXPECT_EQ(safetensors_size_of("f32"), 0);
}

TEST(Safetensors, RefusesABadLength) {
  EXPECT_THAT(error_of_file(""), HasSubstr("0 bytes; expected at least 8"));
  EXPECT_THAT(error_of_file("1234567"), HasSubstr("7 bytes; expected at least 8"));
  EXPECT_THAT(error_of_file(with_length(3, "{}")),
              HasSubstr("header length: 3; expected at most 2"));
  EXPECT_THAT(error_of_file(with_length(~std::uint64_t{0}, "{}")), HasSubstr("header length"));
  EXPECT_THAT(error_of_file(with_length(100'000'001, "{}")), HasSubstr("header length"));
}

TEST(Safetensors, RefusesAHeaderThatIsNoObject) {
  EXPECT_THAT(error_of_header("", 0), HasSubstr("header: empty"));
  EXPECT_THAT(error_of_header(" {}", 0), HasSubstr("'{' first"));
  EXPECT_THAT(error_of_header("[]", 0), HasSubstr("'{' first"));
  EXPECT_THAT(error_of_header("{", 0), HasSubstr("line 1, column 2"));
  EXPECT_THAT(error_of_header("{}x", 0), HasSubstr("header: "));
  EXPECT_THAT(error_of_header("{\"\xff\":{}}", 0), HasSubstr("UTF-8"));
  EXPECT_THAT(error_of_header("{\"a\":[[[[]]]]}", 0), HasSubstr("nested too deep"));
}

TEST(Safetensors, RefusesAKeyGivenTwice) {
  const std::string x = R"("x":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})";
  EXPECT_THAT(error_of_header("{" + x + "," + x + "}"), HasSubstr("key \"x\" twice"));
  EXPECT_THAT(
      error_of_header(R"({"x":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}})"),
      HasSubstr("key \"dtype\" twice"));
}

TEST(Safetensors, RefusesMetadataThatIsNoText) {
  EXPECT_THAT(error_of_header(R"({"__metadata__":{"a":1}})", 0),
              HasSubstr("__metadata__.a: 1; expected a string"));
  EXPECT_THAT(error_of_header(R"({"__metadata__":[]})", 0), HasSubstr("expected an object"));
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"x":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

TEST(Safetensors, RefusesBadFieldsOfATensor) {
  EXPECT_THAT(error_of_header(R"({"x":3})"), HasSubstr("tensor 'x': 3; expected an object"));
  EXPECT_THAT(error_of_header(R"({"x":{"shape":[8],"data_offsets":[0,8]}})"),
              HasSubstr("x'.dtype: missing"));
  EXPECT_THAT(error_of_header(tensor("\"U9\"", "[8]", "[0,8]")), HasSubstr("x'.dtype: \"U9\""));
  EXPECT_THAT(error_of_header(tensor("1", "[8]", "[0,8]")), HasSubstr("x'.dtype: 1"));
  EXPECT_THAT(error_of_header(tensor("\"U8\"", "8", "[0,8]")), HasSubstr("x'.shape: 8"));
  EXPECT_THAT(error_of_header(tensor("\"U8\"", "[-8]", "[0,8]")), HasSubstr("x'.shape[0]: -8"));
  EXPECT_THAT(error_of_header(tensor("\"U8\"", "[8.0]", "[0,8]")), HasSubstr("x'.shape[0]: 8.0"));
  EXPECT_THAT(error_of_header(tensor("\"U8\"", "[8]", "[0]")), HasSubstr("x'.data_offsets: [0]"));
  EXPECT_THAT(error_of_header(tensor("\"U8\"", "[8]", "[8,0]")), HasSubstr("begin <= end"));
  EXPECT_THAT(error_of_header(tensor("\"U8\"", "[8]", "[0,99999999999999999999]")),
              HasSubstr("x'.data_offsets[1]"));
}

TEST(Safetensors, RefusesOffsetsThatContradictTheShape) {
  EXPECT_THAT(error_of_header(tensor("\"F32\"", "[3]", "[0,8]")),
              HasSubstr("x'.data_offsets: 8 bytes; expected 12 for F32 of shape [3]"));
  EXPECT_THAT(error_of_header(tensor("\"F64\"", "[4294967296,4294967296]", "[0,0]")),
              HasSubstr("fewer than 2^63 bytes"));
  EXPECT_EQ(error_of_header(tensor("\"F64\"", "[4294967296,4294967296,0]", "[0,0]"), 0), "");
}

TEST(Safetensors, RefusesOverlapsHolesAndLeftovers) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  EXPECT_EQ(error_of_header(two("[0,4]", "[4,8]")), "");
  EXPECT_THAT(error_of_header(two("[0,4]", "[3,7]")),
              AllOf(HasSubstr("tensor 'b': begins at byte 3"), HasSubstr("overlap")));
  EXPECT_THAT(error_of_header(two("[0,4]", "[5,9]"), 9),
              AllOf(HasSubstr("tensor 'b': begins at byte 5"), HasSubstr("holes")));
  EXPECT_THAT(error_of_header(two("[1,5]", "[5,9]"), 9), HasSubstr("holes"));
  EXPECT_THAT(error_of_header(two("[0,4]", "[4,8]"), 7), HasSubstr("ends at byte 8"));
  EXPECT_THAT(error_of_header(two("[0,4]", "[4,8]"), 9), HasSubstr("9 bytes of data"));
}

}  // namespace
}  // namespace mla::proto
