#include <cstdio>
#include <memory>

#include <gtest/gtest.h>

#include "dist/communicator.h"
#include "tests/dist/world.h"

namespace mla::dist {
namespace {

const Communicator* world_communicator = nullptr;

/// Prints failures of ranks other than 0, whose usual output would only repeat rank 0's.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(),
                 result.message());
  }
  int rank_;
};

}  // namespace

const Communicator& test_world() {
  return *world_communicator;
}

}  // namespace mla::dist

int main(int argc, char** argv) {
  const mla::dist::Environment environment(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  const auto world = mla::dist::Communicator::world();
  mla::dist::world_communicator = &world;
  if (world.rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(std::make_unique<mla::dist::FailurePrinter>(world.rank()).release());
  }
  return RUN_ALL_TESTS();
}
