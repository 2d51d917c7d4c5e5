// How the error of a decode against fp64 grows with the number of keys: docs/numerics.md. Prints
// CSV, one line for each (input, type, method, chunk size, length), with the median and the maximum
// over seeds of each error. The defaults take 7 minutes on two cores, and 1.3 GiB.
//   error_growth --lengths 1024,65536 --inputs random,levels --backends portable --seeds 5

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/median.h"
#include "tests/numerics/errors.h"
#include "tests/numerics/inputs.h"
#include "tests/support/runner.h"

namespace mla::test {
namespace {

constexpr MlaShape kShape{4, 1, 576, 512};
constexpr std::int64_t kKeysPerPoint = std::int64_t{1} << 20;  // of all seeds, if there are several

struct Options {
  std::vector<std::int64_t> lengths{1024, 4096, 16384, 65536, 262144, 1048576};
  std::vector<std::string> inputs;
  std::vector<std::string> backends;
  std::vector<std::string> dtypes{"bf16", "fp16"};
  std::vector<std::int64_t> chunks{kDefaultChunkTokens, 0};
  int seeds = 3;
};

Options parse(int argc, char** argv) {
  Options options;
  CLI::App app{"Error of decode against fp64 over the number of keys, as CSV"};
  app.add_option("--lengths", options.lengths, "Numbers of keys")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--inputs", options.inputs, "Kinds of input; all by default")->delimiter(',');
  app.add_option("--backends", options.backends, "All that this machine can run by default")
      ->delimiter(',');
  app.add_option("--dtypes", options.dtypes, "Of the cache")
      ->delimiter(',')
      ->check(CLI::IsMember({"bf16", "fp16"}))
      ->capture_default_str();
  app.add_option("--chunks", options.chunks, "Tokens of a backend's chunks; 0: one for all keys")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seeds", options.seeds,
                 "Problems of each kind, fewer where they would have over a million keys")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    std::exit(code == 0 ? 0 : static_cast<int>(ExitCode::kUsage));
  }
  for (const InputKind& kind : input_kinds()) {
    if (app.count("--inputs") == 0) options.inputs.emplace_back(kind.name);
  }
  for (const kernels::HostBackend* backend : usable_backends()) {
    if (app.count("--backends") == 0) options.backends.emplace_back(backend->name());
  }
  return options;
}

/// The straightforward implementations, then each backend with each chunk size. The reference
/// backend is fp64 inside a chunk, so one chunk for all keys would say nothing of it.
std::vector<Method> methods_for(const Options& options) {
  std::vector<Method> methods;
  methods.push_back({"plain_fp32", 0, [](const auto& params) {
                       return plain_attention(params, PlainPrecision::kFp32);
                     }});
  methods.push_back({"plain_16bit", 0, [](const auto& params) {
                       return plain_attention(params, PlainPrecision::kCache);
                     }});
  for (const std::string& name : options.backends) {
    const kernels::HostBackend* backend = &kernels::find_host_backend(name);
    const auto run = [=](const auto& params) { return run_backend(*backend, params); };
    for (const std::int64_t chunk : options.chunks) {
      if (chunk == 0 && backend->name() == "reference") continue;
      methods.push_back({std::string(backend->name()), chunk, run});
    }
  }
  return methods;
}

/// What is known of one point of a curve: an entry per seed.
struct Point {
  std::vector<ResultErrors> errors;
  std::vector<double> n_eff;  ///< median over rows
};

/// One point of each method's curve. Methods run side by side.
std::vector<Point> measure(const Options& options, const std::vector<Method>& methods,
                           const InputKind& kind, DType dtype, std::int64_t length) {
  std::vector<Point> points(methods.size());
  const int affordable = static_cast<int>(std::max<std::int64_t>(1, kKeysPerPoint / length));
  for (int seed = 1; seed <= std::min(options.seeds, affordable); ++seed) {
    const Input input(kind, kShape, dtype, length, static_cast<std::uint64_t>(seed));
    const ExactAttention exact = exact_attention(input.params());
    std::vector<std::future<FloatAttention>> results;
    for (const Method& method : methods) {
      const auto params = input.params(method.chunk_tokens == 0 ? length : method.chunk_tokens);
      results.push_back(
          std::async(std::launch::async, [&method, params] { return method.run(params); }));
    }
    for (std::size_t i = 0; i < methods.size(); ++i) {
      points[i].errors.push_back(errors_of(results[i].get(), exact, dtype));
      points[i].n_eff.push_back(median(exact.n_eff));
    }
  }
  return points;
}

constexpr struct {
  const char* name;
  double ResultErrors::*value;
} kColumns[] = {{"rms", &ResultErrors::rms},         {"rms_rounded", &ResultErrors::rms_rounded},
                {"max_abs", &ResultErrors::max_abs}, {"max_rel", &ResultErrors::max_rel},
                {"cosine", &ResultErrors::cosine},   {"lse_abs", &ResultErrors::lse_abs}};

void print_header() {
  std::printf("input,dtype,method,chunk,tokens,n_eff");
  for (const auto& column : kColumns) std::printf(",%s,%s_max", column.name, column.name);
  std::printf(",mismatches_max,seeds_passed,seeds\n");
}

void print(const InputKind& kind, DType dtype, const Method& method, std::int64_t length,
           const Point& point) {
  std::printf("%s,%s,%s,%s,%lld,%.4g", std::string(kind.name).c_str(),
              std::string(name_of(dtype)).c_str(), method.name.c_str(),
              method.chunk_tokens == 0 ? "all" : std::to_string(method.chunk_tokens).c_str(),
              static_cast<long long>(length), median(point.n_eff));
  for (const auto& column : kColumns) {
    std::vector<double> values;
    for (const ResultErrors& errors : point.errors) values.push_back(errors.*column.value);
    std::printf(",%.3g,%.3g", median(values), *std::max_element(values.begin(), values.end()));
  }
  std::int64_t mismatches = 0;
  std::size_t passed = 0;
  for (const ResultErrors& errors : point.errors) {
    mismatches = std::max(mismatches, errors.mismatches);
    passed += errors.pass ? 1 : 0;
  }
  std::printf(",%lld,%zu,%zu\n", static_cast<long long>(mismatches), passed, point.errors.size());
}

void run(const Options& options) {
  const std::vector<Method> methods = methods_for(options);
  print_header();
  for (const std::string& input : options.inputs) {
    const InputKind& kind = find_input_kind(input);
    for (const std::string& dtype_name : options.dtypes) {
      const DType dtype = dtype_name == "bf16" ? DType::kBf16 : DType::kFp16;
      for (const std::int64_t length : options.lengths) {
        const std::vector<Point> points = measure(options, methods, kind, dtype, length);
        for (std::size_t i = 0; i < methods.size(); ++i) {
          print(kind, dtype, methods[i], length, points[i]);
        }
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace
}  // namespace mla::test

int main(int argc, char** argv) {
  try {
    mla::test::run(mla::test::parse(argc, argv));
    return 0;
  } catch (const mla::Error& error) {
    std::fprintf(stderr, "error_growth: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
