#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proto/batch_file.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

/// The fenced code blocks of a Markdown text whose language is `language`.
std::vector<std::string> code_blocks(const std::string& markdown, const std::string& language) {
  const std::string fence = "\n```" + language + "\n";
  std::vector<std::string> blocks;
  for (std::size_t at = markdown.find(fence); at != std::string::npos;) {
    const std::size_t begin = at + fence.size();
    const std::size_t end = markdown.find("\n```\n", begin);
    blocks.push_back(markdown.substr(begin, end - begin));
    at = markdown.find(fence, end);
  }
  return blocks;
}

void expect_decodable(const std::vector<std::string>& examples, const std::string& file) {
  ASSERT_FALSE(examples.empty());
  const TempDir folder;
  for (const std::string& example : examples) {
    write_file(folder / file, example);
    EXPECT_NO_THROW(validate(read_batch(folder / file), ValidateFor::kDecoding)) << example;
  }
}

TEST(BatchFormatPage, HasExamplesThatParse) {
  const std::filesystem::path page = std::filesystem::path(MLA_SOURCE_DIR) / "docs/batch-format.md";
  const std::string markdown = read_text(page);
  expect_decodable(code_blocks(markdown, "textproto"), "example.txtpb");
  expect_decodable(code_blocks(markdown, "json"), "example.json");
}

}  // namespace
}  // namespace mla::proto
