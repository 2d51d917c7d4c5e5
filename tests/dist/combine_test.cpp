#include "dist/combine.h"

#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/result_builder.h"
#include "kernels/backend.h"
#include "tests/dist/problem.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

/// One long request over all ranks, with one owner, and what each has of it before anything
/// travels.
class CombineTest : public testing::Test {
 protected:
  CombineTest()
      : problem_({.h_q = 4, .h_kv = 1, .d_qk = 24, .d_v = 16}, {{2, 64 * 41}}, 1),
        partition_(
            make_partition(problem_.batch(), {.kind = ShardMode::Kind::kKv}, test_world().size())),
        results_(problem_.batch(), partition_, test_world().rank()),
        pieces_(partition_.pieces_of(test_world().rank())),
        inputs_(problem_.inputs(pieces_)),
        decoder_(kernels::find_host_backend("auto").make_decoder(problem_.batch(), pieces_, inputs_,
                                                                 {})),
        open_(decoder_->run(results_)),
        owns_(partition_.ownerships[0].owner == test_world().rank()),
        sends_(!owns_ && !pieces_.empty()) {}

  Combine combine(ExchangeKind kind) const {
    return {test_world(), problem_.batch(), partition_, {.exchange = kind}};
  }

  Problem problem_;
  Partition partition_;
  ResultBuilder results_;
  std::span<const Piece> pieces_;
  kernels::RankInputs inputs_;
  std::unique_ptr<kernels::NodeDecoder> decoder_;
  std::vector<kernels::OpenItem> open_;
  bool owns_;
  bool sends_;
};

TEST_F(CombineTest, RefusesToSendWhenAPartialWasDropped) {
  if (test_world().size() == 1) GTEST_SKIP() << "nothing travels";
  Combine c = combine(ExchangeKind::kP2p);
  if (!sends_) return;
  open_.at(0).nodes.pop_back();
  EXPECT_THROW(c.post(decoder_->items(), open_), MpiError);
}

TEST_F(CombineTest, RefusesAPartialThatCountsTwice) {
  if (test_world().size() == 1) GTEST_SKIP() << "nothing is shared";
  for (const ExchangeKind kind : {ExchangeKind::kP2p, ExchangeKind::kShm}) {
    const bool twice = owns_;
    auto open = decoder_->run(results_);
    if (twice) open.at(0).nodes.push_back(open.at(0).nodes.front());
    Combine c = combine(kind);
    c.post(decoder_->items(), open);
    if (twice) {
      EXPECT_THROW(c.finish(results_), MpiError);
    } else {
      c.finish(results_);
    }
  }
}

TEST_F(CombineTest, MayBeUsedAgain) {
  if (test_world().size() == 1) GTEST_SKIP() << "nothing travels";
  for (const ExchangeKind kind :
       {ExchangeKind::kP2p, ExchangeKind::kAlltoallv, ExchangeKind::kShm}) {
    Combine c = combine(kind);
    std::vector<ResultSlice> first;
    for (int step = 0; step < 4; ++step) {
      ResultBuilder results(problem_.batch(), partition_, test_world().rank());
      const auto& open = decoder_->run(results);
      c.post(decoder_->items(), open);
      while (!c.progress()) {
      }
      c.finish(results);
      const auto slices = results.take();
      if (step == 0) first = slices;
      EXPECT_EQ(slices, first);
    }
    EXPECT_EQ(c.stats().partials_sent > 0, sends_);
  }
}

}  // namespace
}  // namespace mla::dist
