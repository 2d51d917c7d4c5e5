#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dist/roll.h"

namespace mla::dist {

/// Where a process can be reached: an IPv4 address and a port, both in network order.
struct BeatAddress {
  std::uint32_t address = 0;
  std::uint16_t port = 0;
};

/// A heartbeat as it travels.
struct Beat {
  std::uint64_t token = 0;  ///< of the job; others are not ours
  std::int32_t rank = 0;
  Signs signs;
};

/// A UDP socket for heartbeats. Datagrams may be lost and nothing is ever waited for: where no
/// socket can be had, sending does nothing and nothing comes.
class BeatSocket {
 public:
  explicit BeatSocket(std::uint64_t token);
  ~BeatSocket();
  BeatSocket(const BeatSocket&) = delete;
  BeatSocket& operator=(const BeatSocket&) = delete;

  /// All addresses of this node, the loopback's among them, with our port: whoever wants to reach
  /// us tries them all.
  std::vector<BeatAddress> addresses() const;

  void send(const BeatAddress& to, int rank, const Signs& signs) const;

  struct Received {
    Beat beat;
    BeatAddress from;
  };
  /// The next heartbeat of our job that has arrived, if one has. Never waits.
  std::optional<Received> receive() const;

  /// Waits for a datagram or wake(), at most this long. Returns at once after wake().
  void wait(int milliseconds) const;
  void wake() const;

 private:
  std::uint64_t token_;
  int socket_;
  int wake_;
};

}  // namespace mla::dist
