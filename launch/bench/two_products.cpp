#include "launch/bench/two_products.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <thread>

#include <omp.h>

#include "launch/bench/softmax.h"

namespace mla::launch::bench {
namespace {

// Rows are padded to whole vectors.
constexpr std::int64_t kLanes = 16;

}  // namespace

TwoProducts::TwoProducts(const Workload& workload, const Pool& pool, std::int64_t cache_elements,
                         bool hot, SoftmaxThreads softmax_threads)
    : workload_(workload),
      pool_(pool),
      hot_(hot),
      softmax_threads_(softmax_threads),
      lanes_(workload.point.batch >= workload.point.threads ? workload.point.threads : 1),
      stride_(round_up(workload.point.context_len, kLanes)),
      slots_(cache_elements / (workload.point.tokens() * workload.point.shape.d_qk)),
      scores_(lanes_ * workload.point.rows() * stride_ * 4, "scores"),
      weights_(lanes_ * workload.point.rows() * stride_ * 2, "weights"),
      out_(workload.point.batch * workload.point.rows() * workload.point.shape.d_v),
      lse_(workload.point.batch * workload.point.rows()),
      sums_(lse_.size()) {}

void TwoProducts::prepare() {
  if (!hot_) slot_ = (slot_ + 1) % slots_;
  std::fill(out_.begin(), out_.end(), std::numeric_limits<float>::quiet_NaN());
  std::fill(lse_.begin(), lse_.end(), std::numeric_limits<float>::quiet_NaN());
}

std::int64_t TwoProducts::first_element(std::int64_t request) const {
  return (slot_ * point().tokens() + request * point().context_len) * point().shape.d_qk;
}

void TwoProducts::run() {
  if (!requests_over_threads()) {
    for (std::int64_t r = 0; r < point().batch; ++r) compute(0, r);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(lanes_)
  for (std::int64_t r = 0; r < point().batch; ++r) compute(omp_get_thread_num(), r);
}

void TwoProducts::compute(int lane, std::int64_t request) {
  const std::int64_t place = lane * point().rows() * stride_;
  float* const scores = static_cast<float*>(scores_.data()) + place;
  auto* const halves = static_cast<std::uint16_t*>(weights_.data()) + place;
  void* const weights = wants_bf16() ? static_cast<void*>(halves) : scores;
  compute_scores(lane, request, first_element(request), scores);
  softmax(scores, request, weights);
  compute_values(lane, first_element(request), weights,
                 out_.data() + request * point().rows() * point().shape.d_v);
  normalise(request);
}

void TwoProducts::softmax(float* scores, std::int64_t request, void* weights) {
  constexpr std::int64_t kWorthThreads = 1 << 18;  // scores
  const std::int64_t rows = point().rows();
  const int threads =
      requests_over_threads() || rows * stride_ < kWorthThreads ? 1 : point().threads;
  const auto part = [&](int t) {
    const Range range = even_part(rows, threads, t);
    for (std::int64_t row = range.begin; row < range.end; ++row) {
      softmax_row(scores, request, row, weights);
    }
  };
  if (threads == 1) {
    part(0);
  } else if (softmax_threads_ == SoftmaxThreads::kOpenMp) {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) part(t);
  } else {
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(part, t);
    part(0);
    for (std::thread& thread : others) thread.join();
  }
}

void TwoProducts::softmax_row(float* scores, std::int64_t request, std::int64_t row,
                              void* weights) {
  const std::int64_t place = request * point().rows() + row;
  const std::int64_t visible = point().context_len - (point().query_len - 1 - row / point().heads);
  float* const s = scores + row * stride_;
  std::uint16_t* const halves =
      wants_bf16() ? static_cast<std::uint16_t*>(weights) + row * stride_ : nullptr;
  if (visible <= 0) {
    std::fill(s, s + stride_, 0.0F);
    if (halves != nullptr) std::fill(halves, halves + stride_, std::uint16_t{0});
    lse_[place] = std::numeric_limits<float>::infinity();
    sums_[place] = 1;
    return;
  }
  std::fill(s + visible, s + stride_, -std::numeric_limits<float>::infinity());
  const double scale_log2 = workload_.batch.softmax_scale * std::numbers::log2e;
  const SoftmaxSums sums = softmax_weights(s, stride_, static_cast<float>(scale_log2), halves);
  sums_[place] = sums.sum;
  lse_[place] =
      static_cast<float>((sums.max * scale_log2 + std::log2(sums.sum)) * std::numbers::ln2);
}

void TwoProducts::normalise(std::int64_t request) {
  const std::int64_t d_v = point().shape.d_v;
  for (std::int64_t place = request * point().rows(); place < (request + 1) * point().rows();
       ++place) {
    const float factor = 1 / sums_[place];
    for (std::int64_t d = 0; d < d_v; ++d) out_[place * d_v + d] *= factor;
  }
}

kernels::Comparison TwoProducts::check() const {
  // The cache of the last run as pages that each hold one request.
  KvView kv = pool_.view(point().context_len, point().shape.d_qk);
  kv.data += first_element(0);
  kernels::RankInputs inputs = workload_.inputs(kv);
  std::vector<std::int32_t> pages(point().batch);
  for (std::int64_t r = 0; r < point().batch; ++r) {
    pages[r] = static_cast<std::int32_t>(r);
    inputs.pieces[r].block_table = &pages[r];
  }
  return check_sample(workload_, inputs, [this](std::int64_t request, std::int64_t row) {
    return read_row(request, row);
  });
}

RowResult TwoProducts::read_row(std::int64_t request, std::int64_t row) const {
  const std::int64_t place = request * point().rows() + row;
  const auto begin = out_.begin() + place * point().shape.d_v;
  return {.out = {begin, begin + point().shape.d_v}, .lse = lse_[place]};
}

}  // namespace mla::launch::bench
