#include "launch/bench/device_bench.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/runtime.h"
#include "kernels/decode_operator.h"

namespace mla::launch::bench {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::Stream;

constexpr std::int64_t kFewestDecodes = 8;  // in a graph
constexpr std::int64_t kMostDecodes = 64;

/// So many that a graph goes through the pool once.
std::int64_t decodes_of(const Point& point, const Pool& pool) {
  const auto bytes = static_cast<std::int64_t>(2 * pool.elements().size());
  return std::clamp(bytes / point.cache_bytes(), kFewestDecodes, kMostDecodes);
}

class DeviceContender final : public Contender {
 public:
  DeviceContender(const Workload& workload, const Pool& pool, const DeviceBuffer& device_pool,
                  const Stream& stream, const kernels::Backend& backend, bool exact, bool hot)
      : workload_(workload),
        pool_(pool),
        device_pool_(device_pool),
        stream_(stream),
        name_(std::string(backend.name()) + (exact ? " exact" : " fast")),
        layout_(kernels::contiguous_layout(workload.batch)),
        decode_(backend.make_operator(workload.batch, layout_, {.exact = exact})),
        workspace_(decode_->memory().device_bytes, "the plan"),
        host_workspace_(decode_->memory().host_bytes),
        decodes_(decodes_of(workload.point, pool)),
        tables_(deal_tables(hot)),
        device_tables_(4 * std::ssize(tables_), "block tables"),
        q_(2 * std::ssize(workload.q), "queries"),
        out_(2 * rows() * workload.point.shape.d_v, "results"),
        lse_(4 * rows(), "results") {
    stream_.upload(device_tables_.data(), tables_.data(), device_tables_.bytes());
    stream_.upload(q_.data(), workload.q.data(), q_.bytes());
    decode_->bind(host_workspace_.data(), workspace_.data(), stream_.get());
    enqueue(0);  // so that code is loaded before it is captured
    stream_.synchronise();
    graph_.emplace(stream_, [this] {
      for (std::int64_t i = 0; i < decodes_; ++i) enqueue(i);
    });
  }

  std::string name() const override { return name_; }

  void prepare() override {
    constexpr std::byte kAllOnes{0xff};  // NaN in every floating-point type
    stream_.fill(out_.data(), kAllOnes, out_.bytes());
    stream_.fill(lse_.data(), kAllOnes, lse_.bytes());
  }

  void run() override { timed_run(); }

  double timed_run() override {
    begin_.record(stream_);
    graph_->launch(stream_);
    end_.record(stream_);
    end_.synchronise();
    return end_.seconds_since(begin_) / static_cast<double>(decodes_);
  }

  kernels::Comparison check() const override {
    const Point& point = workload_.point;
    std::vector<std::byte> out(out_.bytes());
    std::vector<float> lse(rows());
    stream_.download(out.data(), out_.data(), out_.bytes());
    stream_.download(lse.data(), lse_.data(), lse_.bytes());
    stream_.synchronise();
    kernels::RankInputs inputs =
        workload_.inputs(pool_.view(point.page_block_size, point.shape.d_qk));
    for (std::int64_t r = 0; r < point.batch; ++r) {
      inputs.pieces[r].block_table =
          tables_.data() + (decodes_ - 1) * table_entries() + r * layout_.block_table_stride;
    }
    return check_sample(workload_, inputs, [&](std::int64_t request, std::int64_t row) {
      const std::int64_t place = request * point.rows() + row;
      return RowResult{.out = read_elements(out.data(), point.dtype, place, point.shape.d_v),
                       .lse = lse[place]};
    });
  }

 private:
  std::int64_t rows() const { return workload_.point.batch * workload_.point.rows(); }
  std::int64_t table_entries() const { return workload_.point.batch * layout_.block_table_stride; }
  std::int64_t pages() const {
    return static_cast<std::int64_t>(pool_.elements().size()) / workload_.batch.page_elements();
  }

  /// The block tables of each decode. Unused entries must not be read, so they are no pages.
  std::vector<std::int32_t> deal_tables(bool hot) const {
    constexpr std::int32_t kNoPage = 2147480000;
    PageDealer dealer(pages());
    std::vector<std::int32_t> tables(decodes_ * table_entries(), kNoPage);
    for (std::int64_t i = 0; i < decodes_; ++i) {
      if (hot && i > 0) {
        std::copy_n(tables.begin(), table_entries(), tables.begin() + i * table_entries());
        continue;
      }
      for (std::int64_t r = 0; r < workload_.point.batch; ++r) {
        const std::int64_t blocks = workload_.point.blocks_of(r);
        std::copy_n(dealer.deal(blocks), blocks,
                    tables.begin() + i * table_entries() + r * layout_.block_table_stride);
      }
    }
    return tables;
  }

  void enqueue(std::int64_t decode) {
    decode_->run(
        {.q = q_.as<const std::uint16_t>(),
         .kv = device_pool_.as<const std::uint16_t>(),
         .num_pages = pages(),
         .block_tables = device_tables_.as<const std::int32_t>() + decode * table_entries(),
         .out = out_.data(),
         .lse = lse_.as<float>()},
        stream_.get());
  }

  const Workload& workload_;
  const Pool& pool_;
  const DeviceBuffer& device_pool_;
  const Stream& stream_;
  std::string name_;
  kernels::OperatorLayout layout_;
  std::unique_ptr<kernels::DecodeOperator> decode_;
  DeviceBuffer workspace_;
  kernels::cuda::PinnedBuffer host_workspace_;
  std::int64_t decodes_;
  std::vector<std::int32_t> tables_;  // [decodes, batch, longest table]
  DeviceBuffer device_tables_;
  DeviceBuffer q_;
  DeviceBuffer out_;
  DeviceBuffer lse_;
  std::optional<kernels::cuda::Graph> graph_;
  kernels::cuda::Event begin_;
  kernels::cuda::Event end_;
};

class CudaBench final : public DeviceBench {
 public:
  CudaBench(const Pool& pool, bool hot)
      : pool_(pool),
        hot_(hot),
        device_pool_(static_cast<std::int64_t>(2 * pool.elements().size()), "the cache") {
    upload_pool();
  }

  std::string gpu_name() const override { return kernels::cuda::device_name(0); }

  void upload_pool() override {
    stream_.upload(device_pool_.data(), pool_.elements().data(), device_pool_.bytes());
    stream_.synchronise();
  }

  std::unique_ptr<Contender> make_contender(const Workload& workload,
                                            const kernels::Backend& backend, bool exact) override {
    return std::make_unique<DeviceContender>(workload, pool_, device_pool_, stream_, backend, exact,
                                             hot_);
  }

  DeviceLimit measure_limit(const kernels::Backend& backend, DType dtype) override {
    if (!reads_) reads_ = kernels::cuda::measure_reads(device_pool_, stream_);
    const auto rate = kernels::cuda::measure_products(backend.name(), dtype, stream_);
    return {&backend, dtype, std::string(rate.instruction), rate.flops_per_second, *reads_};
  }

 private:
  const Pool& pool_;
  bool hot_;
  Stream stream_;
  DeviceBuffer device_pool_;
  std::optional<double> reads_;
};

}  // namespace

std::unique_ptr<DeviceBench> make_device_bench(const Pool& pool, bool hot) {
  kernels::cuda::use_device(0);
  return std::make_unique<CudaBench>(pool, hot);
}

}  // namespace mla::launch::bench
