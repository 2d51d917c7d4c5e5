#include "dist/exchange.h"

#include <string>
#include <thread>

#include "core/error.h"

namespace mla::dist {
namespace {

constexpr struct {
  ExchangeKind kind;
  std::string_view name;
} kKinds[] = {{ExchangeKind::kAuto, "auto"},
              {ExchangeKind::kP2p, "p2p"},
              {ExchangeKind::kAlltoallv, "alltoallv"},
              {ExchangeKind::kShm, "shm"},
              {ExchangeKind::kTwoLevel, "two-level"}};

}  // namespace

ExchangeKind parse_exchange(std::string_view text) {
  for (const auto& known : kKinds) {
    if (known.name == text) return known.kind;
  }
  throw InvalidArgument("--exchange", text, "auto, p2p, alltoallv, shm or two-level");
}

std::string_view to_string(ExchangeKind kind) {
  for (const auto& known : kKinds) {
    if (known.kind == kind) return known.name;
  }
  return "?";
}

void Exchange::wait() {
  constexpr int kSpins = 1000;  // before the core is offered to whoever is waited for
  for (int spin = 0; !progress(); ++spin) {
    if (spin >= kSpins) std::this_thread::yield();
  }
}

}  // namespace mla::dist
