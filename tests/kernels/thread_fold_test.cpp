#include "kernels/thread_fold.h"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/aligned_buffer.h"
#include "core/result_builder.h"
#include "tests/support/generated_problem.h"

namespace mla::test {
namespace {

constexpr std::int64_t kChunks = 13;
constexpr std::int64_t kRows = 16;  // one vector, which plans do not cut

/// One request, its chunks' partials at random, planned for three threads.
class CutRequest {
 public:
  CutRequest()
      : problem_({kRows, 1, 40, 32}, {{1, 64 * kChunks}}),
        batch_(problem_.batch()),
        partition_(make_partition(batch_, {ShardMode::Kind::kBatch}, 1)),
        plan_(make_split_plan(batch_, partition_.pieces_of(0), 3)),
        memory_(kernels::thread_fold_floats(batch_, plan_)),
        fold_(batch_, plan_, memory_.data()),
        chunks_(kChunks * floats()) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> any(0.5F, 2);
    std::generate(chunks_.begin(), chunks_.end(), [&] { return any(random); });
  }

  std::int64_t num_segments() const { return std::ssize(plan_.segments); }

  /// The result when the segments are computed in runs that begin at `begins`, the last run first.
  std::vector<ResultSlice> result_of(const std::vector<std::int64_t>& begins) {
    ResultBuilder builder(batch_, partition_, 0);
    fold_.reset();
    for (std::size_t i = begins.size(); i-- > 0;) {
      EXPECT_FALSE(fold_.fold_ready(0, builder));
      keep({begins[i], i + 1 < begins.size() ? begins[i + 1] : num_segments()});
    }
    EXPECT_TRUE(fold_.fold_ready(1, builder));
    return builder.take();
  }

 private:
  std::int64_t floats() const { return partial_floats(kRows, batch_.shape.d_v); }

  void keep(Range run) {
    const Range chunks{plan_.segments[run.begin].chunks.begin,
                       plan_.segments[run.end - 1].chunks.end};
    std::vector<float> nodes(chunks_.begin() + chunks.begin * floats(),
                             chunks_.begin() + chunks.end * floats());
    TreeFold fold(kChunks);
    for (std::int64_t c = chunks.begin; c < chunks.end; ++c) {
      std::copy_n(chunks_.begin() + c * floats(), floats(), nodes.begin() + fold.size() * floats());
      fold.push({0, c});
      while (fold.combine()) {
        merge_partials(partial_at(nodes.data() + (fold.size() - 1) * floats(), kRows, 32),
                       partial_at(nodes.data() + fold.size() * floats(), kRows, 32));
      }
    }
    fold_.keep(run, nodes.data(), nodes.data() + floats());
  }

  GeneratedProblem problem_;
  const Batch& batch_;
  Partition partition_;
  SplitPlan plan_;
  AlignedBuffer<float> memory_;
  kernels::ThreadFold fold_;
  std::vector<float> chunks_;
};

TEST(ThreadFold, GivesTheSameBitsForAnyRunsOfSegments) {
  CutRequest request;
  ASSERT_GE(request.num_segments(), 8);
  const std::vector<ResultSlice> whole = request.result_of({0});
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::int64_t> begins{0};
    for (std::int64_t s = 1; s < request.num_segments(); ++s) {
      if (random() % 2 == 0) begins.push_back(s);
    }
    EXPECT_EQ(request.result_of(begins), whole);
  }
}

}  // namespace
}  // namespace mla::test
