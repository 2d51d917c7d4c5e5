#include "launch/bench/openblas.h"

#ifdef MLA_HAVE_OPENBLAS
#include <cblas.h>

#include "launch/bench/two_products.h"
#endif

namespace mla::launch::bench {

#ifdef MLA_HAVE_OPENBLAS

namespace {

constexpr int kParallelByOpenMp = 2;

class OpenBlas final : public TwoProducts {
 public:
  OpenBlas(const Workload& workload, const Pool& pool, const float* cache,
           std::int64_t cache_elements, bool hot)
      : TwoProducts(workload, pool, cache_elements, hot,
                    openblas_get_parallel() == kParallelByOpenMp ? SoftmaxThreads::kOpenMp
                                                                 : SoftmaxThreads::kOwn),
        cache_(cache),
        q_(workload.q.size()) {
    for (std::size_t i = 0; i < q_.size(); ++i) {
      q_[i] = point().dtype == DType::kBf16 ? to_float(Bf16{workload.q[i]})
                                            : to_float(Fp16{workload.q[i]});
    }
  }

  std::string name() const override { return "openblas"; }

  void prepare() override {
    TwoProducts::prepare();
    openblas_set_num_threads(library_threads());
  }

 protected:
  void compute_scores(int /*lane*/, std::int64_t request, std::int64_t first,
                      float* scores) override {
    const auto d_qk = static_cast<int>(point().shape.d_qk);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows(), tokens(), d_qk, 1,
                q_.data() + request * point().rows() * point().shape.d_qk, d_qk, cache_ + first,
                d_qk, 0, scores, static_cast<int>(score_stride()));
  }

  void compute_values(int /*lane*/, std::int64_t first, const void* weights, float* out) override {
    const auto d_v = static_cast<int>(point().shape.d_v);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows(), d_v, tokens(), 1,
                static_cast<const float*>(weights), static_cast<int>(score_stride()),
                cache_ + first, static_cast<int>(point().shape.d_qk), 0, out, d_v);
  }

  bool wants_bf16() const override { return false; }

 private:
  int rows() const { return static_cast<int>(point().rows()); }
  int tokens() const { return static_cast<int>(point().context_len); }

  const float* cache_;
  std::vector<float> q_;
};

}  // namespace

std::unique_ptr<Contender> make_openblas(const Workload& workload, const Pool& pool,
                                         const float* cache, std::int64_t cache_elements,
                                         bool hot) {
  return std::make_unique<OpenBlas>(workload, pool, cache, cache_elements, hot);
}

std::string openblas_version() {
  const std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 DYNAMIC_ARCH ..."
  return config.substr(0, config.find(' ', config.find(' ') + 1));
}

#else

std::unique_ptr<Contender> make_openblas(const Workload&, const Pool&, const float*, std::int64_t,
                                         bool) {
  return nullptr;
}

std::string openblas_version() {
  return {};
}

#endif

}  // namespace mla::launch::bench
