#include "launch/bench/decode_contender.h"

namespace mla::launch::bench {

DecodeContender::DecodeContender(const Workload& workload, const Pool& pool,
                                 const kernels::HostBackend& backend, bool hot)
    : workload_(workload),
      backend_(backend),
      hot_(hot),
      pages_(static_cast<std::int64_t>(pool.elements().size()) / workload.batch.page_elements()),
      inputs_(
          workload.inputs(pool.view(workload.point.page_block_size, workload.point.shape.d_qk))),
      partition_(make_partition(workload.batch, {ShardMode::Kind::kBatch}, 1)),
      plan_(make_split_plan(workload.batch, partition_.pieces_of(0), workload.point.threads)),
      results_(workload.batch, partition_, 0),
      decoder_(workload.batch, plan_, backend) {
  choose_pages();
}

void DecodeContender::choose_pages() {
  for (std::int64_t r = 0; r < workload_.point.batch; ++r) {
    inputs_.pieces[r].block_table = pages_.deal(workload_.point.blocks_of(r));
  }
}

void DecodeContender::prepare() {
  if (!hot_) choose_pages();
  const auto slices = results_.slices();
  const auto count = static_cast<std::int64_t>(slices.size());
#pragma omp parallel for num_threads(workload_.point.threads)
  for (std::int64_t i = 0; i < count; ++i) {
    poison(slices[i].out.data(), std::ssize(slices[i].out));
    poison(slices[i].lse.data(), 4 * std::ssize(slices[i].lse));
  }
}

void DecodeContender::run() {
  decoder_.run(inputs_, results_);
}

kernels::Comparison DecodeContender::check() const {
  return check_sample(workload_, inputs_, [this](std::int64_t request, std::int64_t row) {
    return read_row(request, row);
  });
}

RowResult DecodeContender::read_row(std::int64_t request, std::int64_t row) const {
  const ResultSlice& slice = results_.slices()[request];
  return {.out = read_elements(slice.out.data(), workload_.batch.out_dtype, row,
                               workload_.point.shape.d_v),
          .lse = slice.lse[row]};
}

}  // namespace mla::launch::bench
