// Speed of every backend on one core with a cold cache: each call reads pages that the calls
// before it did not, out of a pool of 512 MiB. Times are CPU times of the thread, medians over a
// second of calls.
//   bench_decode [backend...]     all usable ones but "reference" without arguments

#include <algorithm>
#include <cstdio>
#include <new>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "core/error.h"
#include "core/generator.h"
#include "kernels/reference/oracle.h"
#include "tests/bench/peak.h"
#include "tests/bench/peak_loop.h"
#include "tests/support/runner.h"

namespace mla::bench {
namespace {

constexpr MlaShape kDeepSeek{128, 1, 576, 512};
constexpr std::int64_t kPageTokens = 64;
constexpr std::int64_t kPoolBytes = std::int64_t{512} << 20;
constexpr std::int64_t kPageElements = kPageTokens * kDeepSeek.d_qk;
constexpr std::int64_t kPages = kPoolBytes / (kPageElements * 2);
constexpr double kSeconds = 1;
constexpr std::int64_t kCheckedRows = 16;  // a row's result does not depend on the others

/// Zeroed elements, aligned to pages, on huge pages where the system grants them.
class MappedElements {
 public:
  explicit MappedElements(std::int64_t count) : count_(static_cast<std::size_t>(count)) {
    void* memory =
        mmap(nullptr, 2 * count_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    madvise(memory, 2 * count_, MADV_HUGEPAGE);
    data_ = static_cast<std::uint16_t*>(memory);
  }
  ~MappedElements() { munmap(data_, 2 * count_); }
  MappedElements(const MappedElements&) = delete;
  std::span<std::uint16_t> span() { return {data_, count_}; }
  const std::uint16_t* data() const { return data_; }

 private:
  std::size_t count_;
  std::uint16_t* data_;
};

/// The cache, the queries and a shuffled order of the pages.
class Pool {
 public:
  explicit Pool(DType dtype)
      : dtype_(dtype), kv_(kPages * kPageElements), q_(128 * kDeepSeek.d_qk), order_(kPages) {
    generate_elements(1, GeneratedTensor::kKvCache, 0, 0, dtype, kv_.span());
    generate_elements(1, GeneratedTensor::kQuery, 0, 0, dtype, q_);
    std::iota(order_.begin(), order_.end(), 0);
    std::shuffle(order_.begin(), order_.end(), std::mt19937_64(1));
  }

  /// Call number `call` over `context_len` tokens.
  kernels::DecodeParams params(std::int64_t heads, std::int64_t context_len,
                               std::int64_t call) const {
    const std::int64_t blocks = ceil_div(context_len, kPageTokens);
    kernels::DecodeParams params;
    params.shape = kDeepSeek;
    params.scale_log2 = 1.44269504F / 24;
    params.kv = {kv_.data(), dtype_, kPageTokens, kPageElements, kDeepSeek.d_qk, kDeepSeek.d_qk};
    params.block_table = order_.data() + call * blocks % (kPages - blocks);
    params.context_len = context_len;
    params.q = q_.data();
    params.q_head_stride = kDeepSeek.d_qk;
    params.heads = heads;
    params.rows = {0, heads};
    return params;
  }

 private:
  DType dtype_;
  MappedElements kv_;
  std::vector<std::uint16_t> q_;
  std::vector<std::int32_t> order_;
};

kernels::Comparison check(const kernels::Backend& backend, kernels::DecodeParams params) {
  params.rows.end = std::min(params.rows.end, kCheckedRows);
  test::Nodes nodes = test::decode_whole(backend, params);
  std::vector<float> out(nodes.rows * nodes.d_v);
  std::vector<float> lse(nodes.rows);
  for (std::int64_t row = 0; row < nodes.rows; ++row) {
    finalize_out(nodes[0], row, {0, nodes.d_v}, &out[row * nodes.d_v]);
    lse[row] = finalize_lse(nodes[0], row);
  }
  std::vector<double> ref_out(out.size());
  std::vector<double> ref_lse(lse.size());
  kernels::oracle(params, ref_out.data(), ref_lse.data());
  return kernels::compare(out, lse, ref_out, ref_lse);
}

double median_seconds(const kernels::Backend& backend, const Pool& pool, std::int64_t heads,
                      std::int64_t context_len) {
  const kernels::DecodeParams first = pool.params(heads, context_len, 0);
  const test::AlignedBytes workspace(
      backend.workspace_bytes(first.shape, first.chunk_tokens, context_len));
  const test::AlignedBytes nodes(partial_floats(heads, kDeepSeek.d_v) * 4);
  std::vector<double> times;
  double total = 0;
  for (std::int64_t call = 0; total < kSeconds || call < 5; ++call) {
    const kernels::DecodeParams params = pool.params(heads, context_len, call);
    const double begin = cpu_seconds();
    backend.decode(params, {0, params.num_chunks()}, reinterpret_cast<float*>(nodes.data()),
                   workspace.span());
    times.push_back(cpu_seconds() - begin);
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

/// What limits the backend on this machine, in GFLOP/s.
double peak_of(const kernels::Backend& backend, [[maybe_unused]] DType dtype) {
#ifdef MLA_HAVE_AVX512
  if (backend.name() == "avx512") {
    return dtype == DType::kBf16 ? peak_avx512_bf16() : peak_avx512_fma();
  }
#endif
  static_cast<void>(backend);
  return peak_portable_fp32();
}

/// Returns whether every result was right.
bool bench(const kernels::Backend& backend, DType dtype, const Pool& pool) {
  const double peak = peak_of(backend, dtype);
  std::printf("%s, %s: the limit of one core is %.0f GFLOP/s\n",
              std::string(backend.name()).c_str(), std::string(name_of(dtype)).c_str(), peak);
  std::printf("  heads  tokens    GFLOP/s  of limit   KV GB/s  check\n");
  bool pass = true;
  for (const std::int64_t heads : {16, 128}) {
    for (const std::int64_t tokens : {1024, 4096, 32768}) {
      const double seconds = median_seconds(backend, pool, heads, tokens);
      const auto gflop =
          2e-9 * static_cast<double>(heads * tokens * (kDeepSeek.d_qk + kDeepSeek.d_v));
      const auto gbytes = 2e-9 * static_cast<double>(tokens * kDeepSeek.d_qk);
      const kernels::Comparison result = check(backend, pool.params(heads, tokens, 0));
      pass = pass && result.pass;
      std::printf("  %5d  %6d  %9.1f  %7.0f%%  %8.2f  %s\n", static_cast<int>(heads),
                  static_cast<int>(tokens), gflop / seconds, 100 * gflop / seconds / peak,
                  gbytes / seconds, result.pass ? "right" : kernels::to_string(result).c_str());
      std::fflush(stdout);
    }
  }
  return pass;
}

int run(const std::vector<std::string>& names) {
  std::vector<const kernels::Backend*> chosen;
  for (const std::string& name : names) chosen.push_back(&kernels::find_backend(name));
  if (names.empty()) {
    chosen = test::usable_backends();
    std::erase_if(chosen, [](const auto* backend) { return backend->name() == "reference"; });
  }
  bool pass = true;
  for (const DType dtype : {DType::kBf16, DType::kFp16}) {
    const Pool pool(dtype);
    for (const kernels::Backend* backend : chosen) pass = bench(*backend, dtype, pool) && pass;
  }
  return static_cast<int>(pass ? ExitCode::kDone : ExitCode::kVerificationFailed);
}

}  // namespace
}  // namespace mla::bench

int main(int argc, char** argv) {
  try {
    return mla::bench::run({argv + 1, argv + argc});
  } catch (const mla::Error& error) {
    std::fprintf(stderr, "bench_decode: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
