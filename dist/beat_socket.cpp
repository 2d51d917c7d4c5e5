#include "dist/beat_socket.h"

#include <array>
#include <cstring>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mla::dist {
namespace {

sockaddr_in to_system(const BeatAddress& address) {
  sockaddr_in system{};
  system.sin_family = AF_INET;
  system.sin_addr.s_addr = address.address;
  system.sin_port = address.port;
  return system;
}

sockaddr* generic(sockaddr_in& address) {
  return reinterpret_cast<sockaddr*>(&address);
}

}  // namespace

BeatSocket::BeatSocket(std::uint64_t token)
    : token_(token),
      socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  sockaddr_in any = to_system({htonl(INADDR_ANY), 0});
  if (bind(socket_, generic(any), sizeof(any)) != 0 && socket_ >= 0) {
    close(socket_);
    socket_ = -1;
  }
}

BeatSocket::~BeatSocket() {
  if (socket_ >= 0) close(socket_);
  if (wake_ >= 0) close(wake_);
}

std::vector<BeatAddress> BeatSocket::addresses() const {
  sockaddr_in bound{};
  socklen_t length = sizeof(bound);
  ifaddrs* interfaces = nullptr;
  if (getsockname(socket_, generic(bound), &length) != 0 || getifaddrs(&interfaces) != 0) return {};
  std::vector<BeatAddress> found;
  for (const ifaddrs* i = interfaces; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP)) {
      continue;
    }
    sockaddr_in address{};
    std::memcpy(&address, i->ifa_addr, sizeof(address));
    found.push_back({address.sin_addr.s_addr, bound.sin_port});
  }
  freeifaddrs(interfaces);
  return found;
}

void BeatSocket::send(const BeatAddress& to, int rank, const Signs& signs) const {
  const Beat beat{token_, rank, signs};
  sockaddr_in address = to_system(to);
  // Whatever is wrong with this way, the receiver notices the silence.
  (void)sendto(socket_, &beat, sizeof(beat), 0, generic(address), sizeof(address));
}

std::optional<BeatSocket::Received> BeatSocket::receive() const {
  Received received;
  sockaddr_in from{};
  for (;;) {
    socklen_t length = sizeof(from);
    const ssize_t bytes =
        recvfrom(socket_, &received.beat, sizeof(Beat), MSG_TRUNC, generic(from), &length);
    if (bytes < 0) return std::nullopt;
    if (bytes == sizeof(Beat) && received.beat.token == token_) break;
  }
  received.from = {from.sin_addr.s_addr, from.sin_port};
  return received;
}

void BeatSocket::wait(int milliseconds) const {
  std::array<pollfd, 2> ready{{{socket_, POLLIN, 0}, {wake_, POLLIN, 0}}};
  (void)poll(ready.data(), ready.size(), milliseconds);
}

void BeatSocket::wake() const {
  (void)eventfd_write(wake_, 1);
}

}  // namespace mla::dist
