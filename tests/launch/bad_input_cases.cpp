#include "kernels/backend.h"
#include "tests/launch/bad_input.h"

namespace mla::launch {
namespace {

std::string backend_choices() {
  std::string choices = "auto";
  for (const kernels::Backend* backend : kernels::backends()) {
    choices += ", " + std::string(backend->name());
  }
  return choices;
}

std::string decode(const Inputs& in, const std::string& options = "",
                   const std::string& batch = "batch.txtpb") {
  return "decode " + in / batch + " --output " + in / "results" + " " + options;
}

/// Decodes the good batch with a field replaced.
BadInputCase field(const std::string& name, const std::string& from, const std::string& to,
                   const std::string& line) {
  const auto arguments = [from, to](const Inputs& in) {
    in.replace(from, to);
    return decode(in);
  };
  return {name, arguments, 3, line};
}

/// Decodes the good batch with options.
BadInputCase option(const std::string& name, const std::string& options, const std::string& line) {
  return {name, [options](const Inputs& in) { return decode(in, options); }, 2, line};
}

/// Decodes a batch whose cache is in a safetensors file.
BadInputCase sidecar(const std::string& name, const std::string& header, std::size_t bytes,
                     const std::string& line) {
  const auto arguments = [header, bytes](const Inputs& in) {
    in.sidecar(header, bytes);
    return decode(in);
  };
  return {name, arguments, 3, line};
}

/// Decodes a file of these bytes.
BadInputCase file(const std::string& name, const std::string& file_name, const std::string& bytes,
                  const std::string& line) {
  const auto arguments = [file_name, bytes](const Inputs& in) {
    in.write(file_name, bytes);
    return decode(in, "", file_name);
  };
  return {name, arguments, 3, line};
}

/// Runs another command line; "DIR" stands for the folder.
BadInputCase command(const std::string& name, const std::string& text, int exit_code,
                     const std::string& line) {
  const auto arguments = [text](const Inputs& in) {
    std::string result = text;
    for (auto at = result.find("DIR/"); at != std::string::npos; at = result.find("DIR/")) {
      result.replace(at, 4, in / "");
    }
    return result;
  };
  return {name, arguments, exit_code, line};
}

/// Decodes the good batch in binary form, spoilt.
BadInputCase binary(const std::string& name, void (*spoil)(std::string&), const std::string& line) {
  const auto arguments = [spoil](const Inputs& in) {
    std::string bytes = in.binary();
    spoil(bytes);
    in.write("batch.bin", bytes);
    return decode(in, "", "batch.bin");
  };
  return {name, arguments, 3, line};
}

constexpr std::size_t kCacheBytes = 4 * 16 * 24 * 2;

/// A safetensors header whose tensor "kv" is right but for what is given.
std::string kv_header(const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
  return R"({"kv":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

std::vector<BadInputCase> file_cases() {
  return {
      command("MissingBatch", "decode DIR/none.batch --output DIR/results", 3,
              "file 'DIR/none.batch': No such file or directory; expected a file that can be read"),
      command("BatchIsAFolder", "decode DIR/ --output DIR/results", 3,
              "file 'DIR/': Is a directory; expected a file that can be read"),
      file("EmptyBatch", "empty.batch", "",
           "batch: file 'DIR/empty.batch' is empty; expected the magic MESHMLAB, or a "
           ".txtpb or .json file"),
      file("WrongMagic", "wrong.batch", "MESHMLAXsomething",
           "batch: file 'DIR/wrong.batch' begins with 'MESHMLAX'; expected the magic "
           "MESHMLAB, or a .txtpb or .json file"),
      file("TextSyntax", "syntax.txtpb", "header { version: 1\n",
           "batch 'DIR/syntax.txtpb':2:1: Expected identifier, got: : not parsed; "
           "expected a BatchFile in protobuf text format"),
      file("TextUnknownField", "field.txtpb", "header { heads: 4 }\n",
           "batch 'DIR/field.txtpb':1:15: Message type \"meshmla.Header\" has no field named "
           "\"heads\".: not parsed; expected a BatchFile in protobuf text format"),
      file("JsonSyntax", "syntax.json", "{\"header\": [}",
           "batch 'DIR/syntax.json': parse error at line 1, column 13: syntax error while parsing "
           "value "
           "- unexpected '}'; expected '[', '{', or a literal; expected a BatchFile in protobuf "
           "JSON"),
      file("JsonUnknownField", "field.json", "{\"header\": {\"heads\": 4}}",
           "batch 'DIR/field.json': (header) heads: Cannot find field.; expected a "
           "BatchFile in protobuf JSON"),
      binary(
          "TruncatedStream", [](std::string& b) { b.resize(b.size() / 2); },
          "batch 'DIR/batch.bin': damaged or cut short (50 bytes); expected a trailer at the end "
          "with "
          "the checksum of all that is before it"),
      binary(
          "FlippedBit", [](std::string& b) { b[b.size() / 2] ^= 4; },
          "batch 'DIR/batch.bin': damaged or cut short (101 bytes); expected a trailer at the end "
          "with "
          "the checksum of all that is before it"),
      binary(
          "TrailingBytes", [](std::string& b) { b += "more"; },
          "batch 'DIR/batch.bin': damaged or cut short (105 bytes); expected a trailer at the end "
          "with "
          "the checksum of all that is before it"),
      field(
          "WrongVersion", "version: 1", "version: 7",
          "batch 'DIR/batch.txtpb': header.version: 7; expected 1, the only one this build reads")};
}

std::vector<BadInputCase> sidecar_cases() {
  const std::string good_shape = "[4,16,1,24]";
  return {
      field(
          "MissingSidecar", "kv_cache { generated { seed: 1 } }",
          "kv_cache { safetensors { file: 'no.safetensors' tensor: 'kv' } }",
          "file 'DIR/no.safetensors': No such file or directory; expected a file that can be read"),
      sidecar("SidecarHeaderNotJson", "{\"kv\":", kCacheBytes,
              "safetensors 'DIR/kv.safetensors': header: parse error at line 1, column "
              "9: syntax error while parsing value - unexpected end of input; expected "
              "'[', '{', or a literal; expected JSON in UTF-8"),
      sidecar("SidecarOffsetsPastEnd", kv_header("BF16", good_shape, "[0,3072]"), 100,
              "safetensors 'DIR/kv.safetensors': tensor 'kv': ends at byte 3072; "
              "expected at most 100, where the file ends"),
      sidecar("SidecarOffsetsBackwards", kv_header("BF16", good_shape, "[3072,0]"), kCacheBytes,
              "safetensors 'DIR/kv.safetensors': tensor 'kv'.data_offsets: [3072, 0]; "
              "expected [begin, end], begin <= end"),
      sidecar("SidecarOffsetsDoNotFitShape", kv_header("BF16", good_shape, "[0,3070]"), 3070,
              "safetensors 'DIR/kv.safetensors': tensor 'kv'.data_offsets: 3070 bytes; "
              "expected 3072 for BF16 of shape [4, 16, 1, 24]"),
      sidecar(
          "SidecarOverlap",
          R"({"kv":{"dtype":"BF16","shape":[4,16,1,24],"data_offsets":[0,3072]},"x":{"dtype":"U8","shape":[8],"data_offsets":[3068,3076]}})",
          3076,
          "safetensors 'DIR/kv.safetensors': tensor 'x': begins at byte 3068; expected 3072, for "
          "tensors must not overlap"),
      sidecar(
          "SidecarHole",
          R"({"kv":{"dtype":"BF16","shape":[4,16,1,24],"data_offsets":[0,3072]},"x":{"dtype":"U8","shape":[8],"data_offsets":[3080,3088]}})",
          3088,
          "safetensors 'DIR/kv.safetensors': tensor 'x': begins at byte 3080; expected 3072, for "
          "there "
          "must be no holes"),
      sidecar(
          "SidecarDuplicateTensor",
          R"({"kv":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"kv":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2, "safetensors 'DIR/kv.safetensors': header: key \"kv\" twice; expected each key once"),
      sidecar("SidecarUnknownDtype", kv_header("F13", good_shape, "[0,3072]"), kCacheBytes,
              "safetensors 'DIR/kv.safetensors': tensor 'kv'.dtype: \"F13\"; expected "
              "a dtype of the format, such as \"BF16\""),
      sidecar(
          "SidecarWrongDtype", kv_header("F16", good_shape, "[0,3072]"), kCacheBytes,
          "safetensors 'DIR/kv.safetensors': tensor 'kv': F16; expected BF16, the batch's dtype"),
      sidecar("SidecarWrongShape", kv_header("BF16", "[4,16,24,1]", "[0,3072]"), kCacheBytes,
              "safetensors 'DIR/kv.safetensors': tensor 'kv': shape [4, 16, 24, 1]; "
              "expected [4, 16, 1, 24]"),
      sidecar(
          "SidecarLacksTensor", R"({"k":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
          "safetensors 'DIR/kv.safetensors': no tensor 'kv'; expected one, as the batch names it"),
      {"SidecarHeaderPastEnd",
       [](const Inputs& in) {
         in.sidecar("{}", 0);
         in.write("kv.safetensors", std::string("\xff\xff\0\0\0\0\0\0{}", 10));
         return decode(in);
       },
       3, "safetensors 'DIR/kv.safetensors': header length: 65535; expected at most 2"},
      {"SidecarQueryShape",
       [](const Inputs& in) {
         in.sidecar(kv_header("BF16", "[4,16,24]", "[0,3072]"), kCacheBytes);
         in.replace("q { generated { seed: 2 } }",
                    "q { safetensors { file: 'kv.safetensors' tensor: 'kv' } }");
         return decode(in);
       },
       3, "safetensors 'DIR/kv.safetensors': tensor 'kv': shape [4, 16, 24]; expected [1, 4, 24]"}};
}

std::vector<BadInputCase> field_cases() {
  return {
      field("TableTooShort", "[2, 0, 3]", "[2, 0]",
            "requests[0].block_table: 2 entries; expected at least 3 for context_len "
            "40 in blocks of 16"),
      field("PageOutOfRange", "[2, 0, 3]", "[2, 4, 3]",
            "requests[0].block_table[1]: 4; expected at least 0 and below num_pages, 4"),
      field("NegativePage", "[2, 0, 3]", "[2, 0, -1]",
            "requests[0].block_table[2]: -1; expected at least 0 and below num_pages, 4"),
      field("NegativeContext", "context_len: 40", "context_len: -40",
            "requests[0].context_len: -40; expected 0 to 1099511627776"),
      field("AbsurdContext", "context_len: 40", "context_len: 9000000000000000000",
            "requests[0].context_len: 9000000000000000000; expected 0 to 1099511627776"),
      field("NegativeQueryLen", "query_len: 2", "query_len: -2",
            "requests[1].query_len: -2; expected 1 to 1048576"),
      field("AbsurdQueryLen", "query_len: 2", "query_len: 3000000",
            "requests[1].query_len: 3000000; expected 1 to 1048576"),
      field("HeadsNotDivisible", "h_kv: 1", "h_kv: 3",
            "shape.h_kv: 3; expected a divisor of h_q, which is 4"),
      field("NoHeads", "h_q: 4", "h_q: 0", "shape.h_q: 0; expected 1 to 65536"),
      field("ValuesNotAMultipleOf16", "d_v: 16", "d_v: 20",
            "shape.d_v: 20; expected a multiple of 16"),
      field("ValuesWiderThanRows", "d_v: 16", "d_v: 32", "shape.d_qk: 24; expected 32 to 65536"),
      field("RopeNotAMultipleOf8", "d_qk: 24", "d_qk: 22",
            "shape.d_qk: 22; expected d_v (16) plus a multiple of 8"),
      field("NegativePageSize", "page_block_size: 16", "page_block_size: -16",
            "page_block_size: -16; expected 1 to 1048576"),
      field("OddChunk", "chunk_tokens: 64", "chunk_tokens: 100",
            "chunk_tokens: 100; expected a multiple of 64"),
      field("AbsurdPool", "num_pages: 4", "num_pages: 99999999999",
            "num_pages: 99999999999; expected 0 to 2147483647"),
      field("NegativeScale", "softmax_scale: 0.2", "softmax_scale: -0.2",
            "softmax_scale: -0.200000; expected a positive number up to 1e6"),
      field("NanScale", "softmax_scale: 0.2", "softmax_scale: nan",
            "softmax_scale: nan; expected a positive number up to 1e6"),
      field("WrongDtype", "dtype: BF16", "dtype: FP32", "dtype: fp32; expected bf16 or fp16"),
      field("WrongOutDtype", "out_dtype: FP32", "out_dtype: FP16",
            "out_dtype: fp16; expected bf16 (the batch's dtype) or fp32"),
      field("SameIdTwice", "\"b\"", "\"a\"",
            "requests[1].custom_id: 'a'; expected an id that no earlier request has"),
      field("NoCacheSource", "kv_cache { generated { seed: 1 } }", "",
            "kv_cache: no source (this batch holds lengths only); expected "
            "safetensors, inline data or a generator"),
      field("NoQuerySource", "q { generated { seed: 2 } }", "",
            "requests[0].q: no source; expected safetensors, inline data or a generator"),
      field("InlineQueryTooShort", "q { generated { seed: 2 } }",
            "q { inline { values: [1, 2, 3] } }", "requests[0].q: 6 inline bytes; expected 192"),
      file("NoRequests", "none.txtpb",
           "header { version: 1 shape { h_q: 4 d_qk: 24 d_v: 16 } num_pages: 1 "
           "kv_cache { generated { seed: 1 } } }",
           "requests: 0; expected at least 1")};
}

std::vector<BadInputCase> option_cases() {
  return {option("GridDoesNotFitRanks", "--mode grid:9x9",
                 "--mode: grid:9x9; expected a grid whose H times K is the number of ranks, RANKS"),
          option("UnknownMode", "--mode rows",
                 "--mode: rows; expected auto, heads, kv, batch or grid:HxK"),
          option("UnknownBackend", "--backend abacus",
                 "--backend: abacus; expected one of " + backend_choices()),
          option("UnknownExchange", "--exchange tcp",
                 "--exchange: tcp; expected auto, p2p, alltoallv, shm or two-level"),
          option("NoThreads", "--threads 0",
                 "--threads: Value 0 not in range 1 to 4096; expected what 'meshmla --help' shows"),
          option("UnknownFormat", "--format csv",
                 "--format: csv not in {stream,safetensors}; expected what 'meshmla --help' shows"),
          option("UnknownOption", "--speed 11",
                 "The following arguments were not expected: 11 --speed; expected what "
                 "'meshmla --help' shows"),
          command("NoOutput", "decode DIR/batch.txtpb", 2,
                  "--output is required; expected what 'meshmla --help' shows"),
          command("UnknownCommand", "bake DIR/batch.txtpb", 2,
                  "command: bake; expected bench, decode, generate, inspect, make-batch, "
                  "perplexity, plan or verify"),
          command("NoCommand", "", 2,
                  "command: none; expected bench, decode, generate, inspect, make-batch, "
                  "perplexity, plan or verify"),
          command("OutputFolderMissing", "decode DIR/batch.txtpb --output DIR/no/results", 7,
                  "cannot write into 'DIR/no': No such file or directory"),
          command("OutputIsAFolder", "decode DIR/batch.txtpb --output DIR/", 7,
                  "cannot write 'DIR/': Is a directory"),
          command("OutputNotWritable", "decode DIR/batch.txtpb --output /proc/results", 7,
                  "cannot create '/proc/results': No such file or directory")};
}

std::vector<BadInputCase> command_cases() {
  return {
      command(
          "MissingTrace", "make-batch DIR/trace.jsonl --output DIR/made.batch", 3,
          "file 'DIR/trace.jsonl': No such file or directory; expected a file that can be read"),
      {"MalformedTrace",
       [](const Inputs& in) {
         in.write("trace.jsonl", "{\"timestamp\": 0, \"input_length\": 5}\n");
         return "make-batch " + in / "trace.jsonl" + " --output " + in / "made.batch";
       },
       3, "trace 'DIR/trace.jsonl': line 1: request.output_length: missing; expected a number"},
      {"TraceTooShort",
       [](const Inputs& in) {
         in.write("trace.csv",
                  "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                  "2023-11-16 18:15:46.6805900,374,44\n");
         return "make-batch " + in / "trace.csv" + " --output " + in / "made.batch";
       },
       2, "requests: 32; expected at most 1, the trace entries from 0"},
      command("PlanForNoRanks", "plan DIR/batch.txtpb --ranks 0", 2,
              "--ranks: Value 0 not in range 1 to 1048576; expected what 'meshmla --help' shows"),
      command("VerifyWithoutResults", "verify DIR/batch.txtpb DIR/no.results", 3,
              "file 'DIR/no.results': No such file or directory; expected a file that can be read"),
      command("VerifyABatchAsResults", "verify DIR/batch.txtpb DIR/batch.txtpb", 3,
              "results 'DIR/batch.txtpb': another beginning; expected the magic "
              "MESHMLAR, or a .safetensors file"),
      command("InspectMissingFile", "inspect DIR/nothing", 3,
              "file 'DIR/nothing': No such file or directory; expected a file that can be read")};
}

}  // namespace

std::vector<BadInputCase> bad_input_cases() {
  std::vector<BadInputCase> all;
  for (const auto& cases : {file_cases(), sidecar_cases(), field_cases(), option_cases(),
                            command_cases(), model_cases()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

}  // namespace mla::launch
