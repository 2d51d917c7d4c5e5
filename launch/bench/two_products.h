#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/bench/contender.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// The baseline that a matrix library gives: for each request S = Q K^T, softmax over the rows of
/// S, O = P V, with the cache contiguous in memory (which favours it: no page has to be found).
/// Keys beyond what a query sees are computed too and then get the weight 0. Where there are as
/// many requests as threads, each thread has requests of its own, else the library has the threads.
class TwoProducts : public Contender {
 public:
  void prepare() override;
  void run() override;
  kernels::Comparison check() const final;

 protected:
  /// Who computes the softmax where the library's threads share a request: OpenMP's idle threads
  /// spin, which would slow a library that has threads of its own.
  enum class SoftmaxThreads : std::uint8_t { kOpenMp, kOwn };

  /// Runs over the first `cache_elements` of `pool`, which is contiguous rows to it, a different
  /// part in each run unless `hot`.
  TwoProducts(const Workload& workload, const Pool& pool, std::int64_t cache_elements, bool hot,
              SoftmaxThreads softmax_threads);

  /// scores[rows, score_stride] = Q K^T of `request`, whose keys begin at element `first` of the
  /// pool. Called on several threads at once, on each with another `lane`.
  virtual void compute_scores(int lane, std::int64_t request, std::int64_t first,
                              float* scores) = 0;
  /// out[rows, d_v] = P V. `weights` is [rows, score_stride], unnormalised, in place of the scores:
  /// floats, or bf16 of the same row stride in elements if `wants_bf16`.
  virtual void compute_values(int lane, std::int64_t first, const void* weights, float* out) = 0;
  virtual bool wants_bf16() const = 0;

  /// True where each thread has requests of its own.
  bool requests_over_threads() const { return lanes_ > 1 || point().threads == 1; }
  int library_threads() const { return requests_over_threads() ? 1 : point().threads; }
  int lanes() const { return lanes_; }
  const Point& point() const { return workload_.point; }
  const Workload& workload() const { return workload_; }
  std::int64_t score_stride() const { return stride_; }

 private:
  std::int64_t first_element(std::int64_t request) const;
  void compute(int lane, std::int64_t request);
  void softmax(float* scores, std::int64_t request, void* weights);
  void softmax_row(float* scores, std::int64_t request, std::int64_t row, void* weights);
  void normalise(std::int64_t request);
  RowResult read_row(std::int64_t request, std::int64_t row) const;

  const Workload& workload_;
  const Pool& pool_;
  bool hot_;
  SoftmaxThreads softmax_threads_;
  int lanes_;
  std::int64_t stride_;
  std::int64_t slots_;  // places in the pool for a batch
  std::int64_t slot_ = 0;
  proto::MappedMemory scores_;     // [lanes, rows, stride] floats
  proto::MappedMemory weights_;    // [lanes, rows, stride] bf16, if wanted
  std::vector<float> out_;         // [batch, rows, d_v]
  std::vector<float> lse_, sums_;  // [batch, rows]
};

}  // namespace mla::launch::bench
