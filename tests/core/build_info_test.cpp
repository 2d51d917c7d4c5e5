#include "core/build_info.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mla {
namespace {

using testing::HasSubstr;

TEST(BuildInfo, VersionIsThreeNumbers) {
  EXPECT_THAT(std::string(version()), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

TEST(BuildInfo, RevisionIsAHashOrEmpty) {
  EXPECT_THAT(std::string(git_revision()), testing::MatchesRegex("([0-9a-f]+(-dirty)?)?"));
}

TEST(BuildInfo, KnowsItsCompiler) {
#ifdef __clang__
  EXPECT_THAT(std::string(compiler()), HasSubstr("Clang"));
#else
  EXPECT_EQ(compiler().substr(0, 4), "GNU ");
#endif
  EXPECT_FALSE(build_type().empty());
}

TEST(BuildInfo, SummaryIsOneLineWithEverything) {
  const std::string line = build_summary();
  for (const std::string_view part :
       {version(), git_revision(), compiler(), build_type(), compile_flags()}) {
    EXPECT_THAT(line, HasSubstr(std::string(part)));
  }
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 0);
}

}  // namespace
}  // namespace mla
