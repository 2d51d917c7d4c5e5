#include "launch/bench/measure.h"

#include <gtest/gtest.h>

namespace mla::launch::bench {
namespace {

/// Writes down what is asked of it.
class Scribe final : public Contender {
 public:
  explicit Scribe(std::string& log) : log_(log) {}
  std::string name() const override { return "scribe"; }
  void prepare() override { log_ += 'p'; }
  void run() override { log_ += 'r'; }
  kernels::Comparison check() const override { return {}; }

 private:
  std::string& log_;
};

TEST(Measure, PreparesBeforeEachRunAndDoesNotCountTheFirst) {
  std::string log;
  std::vector<std::unique_ptr<Contender>> contenders;
  contenders.push_back(std::make_unique<Scribe>(log));
  const auto timings = measure(contenders, {.repeats = 3, .seconds = 0});
  EXPECT_EQ(log, "prprprpr");
  EXPECT_EQ(timings[0].seconds.size(), 3U);
}

TEST(Measure, GivesAllContendersAsManyRepeats) {
  std::string log;
  std::vector<std::unique_ptr<Contender>> contenders;
  contenders.push_back(std::make_unique<Scribe>(log));
  contenders.push_back(std::make_unique<Scribe>(log));
  const auto timings = measure(contenders, {.repeats = 2, .seconds = 0});
  EXPECT_EQ(timings[0].seconds.size(), 2U);
  EXPECT_EQ(timings[1].seconds.size(), 2U);
}

TEST(Timing, HasAMedianAndASpread) {
  const Timing timing{{3, 1, 2, 10, 4}};
  EXPECT_EQ(timing.median(), 3);
  EXPECT_EQ(timing.min(), 1);
  EXPECT_EQ(timing.max(), 10);
  EXPECT_EQ(speed_ratio({{1, 2, 4}}, {{2, 8, 4}}), 2);
}

}  // namespace
}  // namespace mla::launch::bench
