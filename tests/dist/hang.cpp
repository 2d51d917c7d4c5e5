// A job that hangs: rank 1 computes for ever, the others wait for it. Only the watchdog ends it.

#include <chrono>
#include <thread>

#include "dist/activity.h"
#include "dist/communicator.h"
#include "dist/watchdog.h"

int main(int argc, char** argv) {
  using namespace mla::dist;
  const Environment environment(argc, argv);
  const Communicator world = Communicator::world();
  const Watchdog watchdog(world, 1);
  enter(Phase::kCompute);
  if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::minutes(5));
  enter(Phase::kExchange);
  world.barrier();
}
