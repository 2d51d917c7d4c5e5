#include "core/error.h"

#include <cerrno>

#include <gtest/gtest.h>

namespace mla {
namespace {

struct Case {
  Error error;
  ExitCode exit_code;
  const char* line;
};

TEST(Error, SaysFieldValueAndExpectationInOneLine) {
  const Case cases[] = {
      {InvalidArgument("--mode", "ring", "heads or kv"), ExitCode::kUsage,
       "--mode: ring; expected heads or kv"},
      {FormatError("requests[3].context_len", "-1", "0 to 10"), ExitCode::kBadInput,
       "requests[3].context_len: -1; expected 0 to 10"},
      {Unsupported("--backend", "fast", "portable"), ExitCode::kUsage,
       "--backend: fast; expected portable"},
      {NotCompiled("cuda", "a build with -DMLA_CUDA=ON"), ExitCode::kUsage,
       "cuda: not in this build; expected a build with -DMLA_CUDA=ON"},
      {MpiError("MPI_Alltoallv", "truncated"), ExitCode::kPeerLost, "MPI_Alltoallv: truncated"},
      {IoError("read", "a.safetensors", ENOENT), ExitCode::kIo,
       "cannot read 'a.safetensors': No such file or directory"},
      {IoError("write", "out", 0), ExitCode::kIo, "cannot write 'out'"},
  };
  for (const Case& c : cases) {
    EXPECT_STREQ(c.error.what(), c.line);
    EXPECT_EQ(c.error.exit_code(), c.exit_code) << c.line;
  }
}

TEST(Error, StaysOnOneLineWhateverTheFileSays) {
  EXPECT_STREQ(FormatError("custom_id", "'a\nb\tc\x7f'", "\r").what(),
               "custom_id: 'a?b?c?'; expected ?");
}

TEST(ExitCodes, AreThoseOfTheManualAndFitOpenMpi) {
  const std::pair<ExitCode, int> codes[] = {{ExitCode::kDone, 0},
                                            {ExitCode::kUsage, 2},
                                            {ExitCode::kBadInput, 3},
                                            {ExitCode::kSomeRequestsFailed, 4},
                                            {ExitCode::kVerificationFailed, 5},
                                            {ExitCode::kPeerLost, 6},
                                            {ExitCode::kIo, 7},
                                            {ExitCode::kStopped, 75}};
  for (const auto& [code, number] : codes) {
    EXPECT_EQ(static_cast<int>(code), number);
    EXPECT_LE(number, 125);
  }
}

}  // namespace
}  // namespace mla
