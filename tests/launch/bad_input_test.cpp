// Every wrong input ends in one exact line and its exit code, on any number of ranks, and leaves
// nothing at the output path.

#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/safetensors.h"
#include "tests/launch/run_command.h"

namespace mla::launch {
namespace {

constexpr const char* kGoodBatch = R"(
header {
  version: 1
  shape { h_q: 4 h_kv: 1 d_qk: 24 d_v: 16 }
  dtype: BF16
  out_dtype: FP32
  page_block_size: 16
  num_pages: 4
  chunk_tokens: 64
  softmax_scale: 0.2
  kv_cache { generated { seed: 1 } }
}
requests { custom_id: "a" query_len: 1 context_len: 40 block_table: [2, 0, 3] q { generated { seed: 2 } } }
requests { custom_id: "b" query_len: 2 context_len: 16 block_table: [1] q { generated { seed: 2 } } }
)";

/// A folder with a good batch in it, to be spoilt.
class Inputs {
 public:
  Inputs() { write("batch.txtpb", kGoodBatch); }

  std::string operator/(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name, const std::string& bytes) const {
    write_file(folder_ / name, bytes);
  }
  /// The good batch with `from` replaced by `to`, as "batch.txtpb".
  void replace(const std::string& from, const std::string& to) const {
    std::string text = kGoodBatch;
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write("batch.txtpb", text.replace(at, from.size(), to));
  }
  /// The good batch in binary form, as "batch.bin".
  std::string binary() const {
    write("trace.jsonl",
          "{\"timestamp\": 0, \"input_length\": 40, \"output_length\": 1, \"hash_ids\": [1]}\n");
    run_meshmla(0, "make-batch " + folder_ / "trace.jsonl" + " --requests 1 --heads 2 --output " +
                       folder_ / "batch.bin");
    return read_file(folder_ / "batch.bin");
  }
  /// A batch whose cache comes from `header` (JSON) and `data_bytes` zero bytes.
  void sidecar(const std::string& header, std::size_t data_bytes) const {
    replace("kv_cache { generated { seed: 1 } }",
            "kv_cache { safetensors { file: 'kv.safetensors' tensor: 'kv' } }");
    std::string length(8, '\0');
    for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    write("kv.safetensors", length + header + std::string(data_bytes, '\0'));
  }
  std::vector<std::string> files() const { return folder_.files(); }
  /// `text` with every mention of the folder replaced by "DIR".
  std::string without_folder(std::string text) const {
    const std::string path = folder_ / "";
    for (auto at = text.find(path); at != std::string::npos; at = text.find(path)) {
      text.replace(at, path.size(), "DIR/");
    }
    return text;
  }

 private:
  TemporaryFolder folder_;
};

struct Case {
  std::string name;
  std::function<std::string(const Inputs&)> arguments;  ///< spoils the inputs
  int exit_code;
  std::string line;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::string decode(const Inputs& in, const std::string& more = "",
                   const std::string& batch = "batch.txtpb") {
  return "decode " + in / batch + " --output " + in / "results" + " " + more;
}

/// Decodes the good batch with a field replaced.
Case field(const std::string& name, const std::string& from, const std::string& to,
           const std::string& line) {
  return {name,
          [from, to](const Inputs& in) {
            in.replace(from, to);
            return decode(in);
          },
          3, line};
}

/// Decodes the good batch with options.
Case option(const std::string& name, const std::string& options, int exit_code,
            const std::string& line) {
  return {name, [options](const Inputs& in) { return decode(in, options); }, exit_code, line};
}

/// Decodes a batch whose cache is in a safetensors file.
Case sidecar(const std::string& name, const std::string& header, std::size_t bytes,
             const std::string& line) {
  return {name,
          [header, bytes](const Inputs& in) {
            in.sidecar(header, bytes);
            return decode(in);
          },
          3, line};
}

#include "tests/launch/bad_input_cases.inc"

class BadInput : public testing::TestWithParam<Case> {};

TEST_P(BadInput, EndsInOneLineAndItsExitCodeOnAnyNumberOfRanks) {
  const Case& c = GetParam();
  for (const int ranks : {0, 1, 2, 3, 5}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    const Inputs inputs;
    const std::string arguments = c.arguments(inputs);
    const std::vector<std::string> before = inputs.files();
    const CommandResult result = run_meshmla(ranks, arguments);
    EXPECT_EQ(result.exit_code, c.exit_code);
    ASSERT_EQ(result.errors.size(), 1u) << testing::PrintToString(result.errors);
    EXPECT_EQ(inputs.without_folder(result.errors[0]), "meshmla: error: " + c.line);
    EXPECT_EQ(inputs.files(), before);
    std::printf("[ seconds  ] %d ranks %.2f\n", ranks, result.seconds);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, BadInput, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(GoodInput, OfTheseTestsIsDecoded) {
  const Inputs inputs;
  const CommandResult result = run_meshmla(2, decode(inputs));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(inputs.files(), testing::ElementsAre("batch.txtpb", "results", "results.manifest.json"));
}

}  // namespace
}  // namespace mla::launch
