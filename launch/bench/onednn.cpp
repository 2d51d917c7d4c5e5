#include "launch/bench/onednn.h"

#ifdef MLA_HAVE_ONEDNN
#include <dnnl.hpp>
#include <omp.h>

#include "launch/bench/two_products.h"
#endif

namespace mla::launch::bench {

#ifdef MLA_HAVE_ONEDNN

namespace {

using dnnl::memory;

memory::desc matrix(std::int64_t rows, std::int64_t columns, memory::data_type type,
                    std::int64_t row_stride, std::int64_t column_stride = 1) {
  return {{rows, columns}, type, memory::dims{row_stride, column_stride}};
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const memory::desc& a,
                                      const memory::desc& b, const memory::desc& c) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, c, attributes};
#else
  return {dnnl::matmul::desc(a, b, c), attributes, engine};
#endif
}

/// c = a b with matrices that are named when it runs.
class Product {
 public:
  Product(const dnnl::engine& engine, const memory::desc& a, const memory::desc& b,
          const memory::desc& c)
      : description_(describe(engine, a, b, c)),
        primitive_(description_),
        a_(a, engine, nullptr),
        b_(b, engine, nullptr),
        c_(c, engine, nullptr),
        scratch_(description_.scratchpad_desc(), engine) {}

  void run(dnnl::stream& stream, const void* a, const void* b, void* c) {
    a_.set_data_handle(const_cast<void*>(a));
    b_.set_data_handle(const_cast<void*>(b));
    c_.set_data_handle(c);
    primitive_.execute(stream, {{DNNL_ARG_SRC, a_},
                                {DNNL_ARG_WEIGHTS, b_},
                                {DNNL_ARG_DST, c_},
                                {DNNL_ARG_SCRATCHPAD, scratch_}});
    stream.wait();
  }

 private:
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul primitive_;
  memory a_, b_, c_, scratch_;
};

/// What one thread needs to compute requests.
struct Lane {
  Lane(const dnnl::engine& engine, const Point& p, std::int64_t stride)
      : stream(engine),
        scores(engine, matrix(p.rows(), p.shape.d_qk, memory::data_type::bf16, p.shape.d_qk),
               matrix(p.shape.d_qk, p.context_len, memory::data_type::bf16, 1, p.shape.d_qk),
               matrix(p.rows(), p.context_len, memory::data_type::f32, stride)),
        values(engine, matrix(p.rows(), p.context_len, memory::data_type::bf16, stride),
               matrix(p.context_len, p.shape.d_v, memory::data_type::bf16, p.shape.d_qk),
               matrix(p.rows(), p.shape.d_v, memory::data_type::f32, p.shape.d_v)) {}

  dnnl::stream stream;
  Product scores;
  Product values;
};

/// The number of OpenMP threads that the library takes, for as long as this lives.
class Threads {
 public:
  explicit Threads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

class OneDnn final : public TwoProducts {
 public:
  OneDnn(const Workload& workload, const Pool& pool, bool hot)
      : TwoProducts(workload, pool, static_cast<std::int64_t>(pool.elements().size()), hot,
                    SoftmaxThreads::kOpenMp),
        cache_(pool.elements().data()),
        engine_(dnnl::engine::kind::cpu, 0) {
    const Threads threads(library_threads());  // primitives are planned for them
    for (int i = 0; i < lanes(); ++i) by_lane_.emplace_back(engine_, point(), score_stride());
  }

  std::string name() const override { return "onednn"; }

  void run() override {
    const Threads threads(library_threads());
    TwoProducts::run();
  }

 protected:
  void compute_scores(int lane, std::int64_t request, std::int64_t first, float* scores) override {
    by_lane_[lane].scores.run(by_lane_[lane].stream, workload().query(request), cache_ + first,
                              scores);
  }
  void compute_values(int lane, std::int64_t first, const void* weights, float* out) override {
    by_lane_[lane].values.run(by_lane_[lane].stream, weights, cache_ + first, out);
  }
  bool wants_bf16() const override { return true; }

 private:
  const std::uint16_t* cache_;
  dnnl::engine engine_;
  std::vector<Lane> by_lane_;
};

}  // namespace

std::unique_ptr<Contender> make_onednn(const Workload& workload, const Pool& pool, bool hot,
                                       std::string& why) {
  if (workload.point.dtype != DType::kBf16) {
    why = "is measured on bf16 caches only";
    return nullptr;
  }
  try {
    return std::make_unique<OneDnn>(workload, pool, hot);
  } catch (const dnnl::error& error) {
    why = error.what();
    return nullptr;
  }
}

std::string onednn_version() {
  const dnnl_version_t& v = *dnnl_version();
  return "oneDNN " + std::to_string(v.major) + "." + std::to_string(v.minor) + "." +
         std::to_string(v.patch);
}

#else

std::unique_ptr<Contender> make_onednn(const Workload&, const Pool&, bool, std::string& why) {
  why = "is not in this build";
  return nullptr;
}

std::string onednn_version() {
  return {};
}

#endif

}  // namespace mla::launch::bench
