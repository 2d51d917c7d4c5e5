#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <fmt/format.h>

#include "core/error.h"
#include "core/split_plan.h"
#include "kernels/local_decode.h"
#include "kernels/reference/compare.h"
#include "kernels/reference/oracle.h"
#include "launch/command.h"
#include "launch/rank_inputs.h"
#include "launch/tables.h"
#include "proto/batch_file.h"
#include "proto/result_file.h"
#include "proto/safetensors.h"
#include "proto/shard_data.h"

namespace mla::launch {
namespace {

struct VerifyOptions {
  std::filesystem::path batch;
  std::filesystem::path results;
  std::filesystem::path expected;
  std::int64_t sample = 4;
  std::uint64_t seed = 0;
  bool all = false;
};

/// What the results of one request should be.
struct Reference {
  std::vector<double> out;  // [query_len, h_q, d_v]
  std::vector<double> lse;  // [query_len, h_q], natural log
};

std::vector<float> to_floats(const Result& result) {
  const auto count = static_cast<std::int64_t>(result.out.size()) / size_of(result.out_dtype);
  std::vector<float> values(count);
  if (result.out_dtype == DType::kFp32) {
    std::memcpy(values.data(), result.out.data(), result.out.size());
    return values;
  }
  std::vector<std::uint16_t> halves(count);
  std::memcpy(halves.data(), result.out.data(), result.out.size());
  for (std::int64_t i = 0; i < count; ++i) {
    values[i] =
        result.out_dtype == DType::kBf16 ? to_float(Bf16{halves[i]}) : to_float(Fp16{halves[i]});
  }
  return values;
}

/// Recomputes a request in fp64, on all threads.
Reference recompute(const Batch& batch, const std::filesystem::path& base_dir,
                    std::int64_t request) {
  const std::int64_t h_q = batch.shape.h_q;
  const std::int64_t d_v = batch.shape.d_v;
  const Request& r = batch.requests[request];
  const std::vector<Piece> pieces{{request, {0, h_q}, {0, batch.num_chunks(r)}}};
  const proto::ShardData data(batch, base_dir, pieces, 1);
  const kernels::RankInputs inputs = rank_inputs(data, pieces);

  Reference reference{.out = std::vector<double>(r.query_len * h_q * d_v),
                      .lse = std::vector<double>(r.query_len * h_q)};
  for (const WorkItem& item : work_items(batch, pieces)) {
    std::vector<double> out(item.rows.size() * d_v);
    std::vector<double> lse(item.rows.size());
    kernels::oracle(kernels::decode_params(batch, item, inputs), out.data(), lse.data());
    for (std::int64_t i = 0; i < item.rows.size(); ++i) {
      const std::int64_t row = item.rows.begin + i;
      const std::int64_t place =
          row / item.heads.size() * h_q + item.heads.begin + row % item.heads.size();
      std::copy_n(out.data() + i * d_v, d_v, reference.out.data() + place * d_v);
      reference.lse[place] = lse[i];
    }
  }
  return reference;
}

Reference from_file(const proto::ResultSet& expected, const MlaShape& shape,
                    const Request& request) {
  const Result* result = expected.find(request.custom_id);
  if (result == nullptr) {
    throw FormatError("--expected", "no result of '" + request.custom_id + "'",
                      "one for every request verified");
  }
  const std::vector<float> out = to_floats(*result);
  if (result->query_len != request.query_len || result->h_q != shape.h_q ||
      result->d_v != shape.d_v) {
    throw FormatError("--expected['" + request.custom_id + "']",
                      proto::shape_text({result->query_len, result->h_q, result->d_v}),
                      proto::shape_text({request.query_len, shape.h_q, shape.d_v}));
  }
  return {.out = {out.begin(), out.end()}, .lse = {result->lse.begin(), result->lse.end()}};
}

std::vector<std::int64_t> chosen_requests(std::int64_t count, const VerifyOptions& options) {
  std::vector<std::int64_t> requests(count);
  std::iota(requests.begin(), requests.end(), 0);
  if (options.all || !options.expected.empty() || options.sample >= count) return requests;
  std::vector<std::int64_t> sample;
  std::mt19937_64 random(options.seed);
  std::sample(requests.begin(), requests.end(), std::back_inserter(sample), options.sample, random);
  return sample;
}

/// Results are in the order of the batch.
void check_same_batch(const Batch& batch, const proto::ResultSet& results) {
  if (results.results.size() != batch.requests.size()) {
    throw FormatError("results", std::to_string(results.results.size()) + " requests",
                      std::to_string(batch.requests.size()) + ", as in the batch");
  }
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    const Request& request = batch.requests[i];
    const Result& result = results.results[i];
    const std::string field = "results[" + std::to_string(i) + "]";
    if (result.custom_id != request.custom_id) {
      throw FormatError(field, "'" + result.custom_id + "'",
                        "'" + request.custom_id + "', as in the batch");
    }
    if (result.error.empty() && (result.query_len != request.query_len ||
                                 result.h_q != batch.shape.h_q || result.d_v != batch.shape.d_v)) {
      throw FormatError(field + ".out",
                        proto::shape_text({result.query_len, result.h_q, result.d_v}),
                        proto::shape_text({request.query_len, batch.shape.h_q, batch.shape.d_v}));
    }
  }
}

ExitCode verify(const VerifyOptions& options) {
  const Batch batch = proto::read_batch(options.batch);
  validate_header(batch, ValidateFor::kDecoding);
  const proto::ResultSet results = proto::read_results(options.results);
  check_same_batch(batch, results);
  proto::ResultSet expected;
  if (!options.expected.empty()) expected = proto::read_results(options.expected);

  const auto chosen = chosen_requests(static_cast<std::int64_t>(batch.requests.size()), options);
  fmt::print("{:>24} {:>9} {:>11} {:>11} {:>11} {:>11} {:>11}  {}\n", "custom_id", "query_len",
             "context_len", "out abs", "out cosine", "lse abs", "mismatches", "verdict");
  std::int64_t wrong = 0;
  std::int64_t failed = 0;
  for (const std::int64_t index : chosen) {
    const Request& request = batch.requests[index];
    const Result& result = results.results[index];
    if (!result.error.empty()) {
      ++failed;
      fmt::print("{:>24} failed when it was decoded: {}\n", request.custom_id, result.error);
      continue;
    }
    validate_request(batch, index, ValidateFor::kDecoding);
    const Reference reference = options.expected.empty()
                                    ? recompute(batch, options.batch.parent_path(), index)
                                    : from_file(expected, batch.shape, request);
    const kernels::Comparison c =
        kernels::compare(to_floats(result), result.lse, reference.out, reference.lse);
    if (!c.pass) ++wrong;
    fmt::print("{:>24} {:>9} {:>11} {:>11.2e} {:>11.2e} {:>11.2e} {:>11}  {}\n", request.custom_id,
               request.query_len, request.context_len, c.max_abs, c.cosine_difference,
               c.max_lse_abs, c.mismatches, c.pass ? "ok" : "WRONG");
  }
  fmt::print("verified {} of {} requests against {}: {} wrong, {} failed earlier\n",
             static_cast<std::int64_t>(chosen.size()) - failed, batch.requests.size(),
             options.expected.empty() ? "the fp64 oracle" : options.expected.string(), wrong,
             failed);
  if (wrong > 0) return ExitCode::kVerificationFailed;
  return failed > 0 ? ExitCode::kSomeRequestsFailed : ExitCode::kDone;
}

}  // namespace

Command add_verify(CLI::App& app) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* cmd = app.add_subcommand(
      "verify", "Check results against an fp64 recomputation or expected results");
  cmd->add_option("batch", options->batch, "Batch file")->required();
  cmd->add_option("results", options->results, "Result file of that batch")->required();
  cmd->add_option("--expected", options->expected,
                  "Result file to compare with, instead of recomputing");
  cmd->add_option("--sample", options->sample, "Requests to recompute, chosen by --seed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  cmd->add_option("--seed", options->seed, "Of the sample")->capture_default_str();
  cmd->add_flag("--all", options->all, "Recompute every request");
  return root_command([options] { return verify(*options); });
}

}  // namespace mla::launch
