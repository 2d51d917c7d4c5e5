#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "dist/communicator.h"

namespace mla::dist {

/// How partials travel. Partials of fp32 give the same bits with each.
enum class ExchangeKind : std::uint8_t {
  kAuto,       ///< kShm on one node, else kTwoLevel or kP2p, as the cost model says
  kP2p,        ///< a message for each pair of ranks that has something to say
  kAlltoallv,  ///< one collective over all ranks
  kShm,        ///< written straight into the owner's memory; all ranks on one node
  kTwoLevel,   ///< kShm within nodes, folded there, then kP2p between nodes
};

/// "auto", "p2p", "alltoallv", "shm" or "two-level". @throws InvalidArgument for anything else
ExchangeKind parse_exchange(std::string_view text);
std::string_view to_string(ExchangeKind kind);

/// How many bytes travel to or from one other rank.
struct Parcel {
  int peer = 0;
  std::int64_t bytes = 0;  ///< a multiple of 64
};

/// Moves one message for each parcel, again and again:
///   write outgoing(i) for each i, post(), progress() until it is true, read incoming(i),
///   release().
/// One thread at a time may use it; which one may change.
class Exchange {
 public:
  Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  virtual ~Exchange() = default;

  /// The messages from now on; none is under way. Keeps its memory where that is large enough.
  /// Collective.
  virtual void resize(const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) = 0;
  /// Where the message of the i-th parcel sent is to be written; aligned to 64 bytes. May wait
  /// until the peer has released the one before.
  virtual std::span<std::byte> outgoing(std::size_t i) = 0;
  /// Starts the exchange; all outgoing messages are written. Collective, never waits.
  virtual void post() = 0;
  /// Moves on; true once all messages have arrived, and the outgoing ones have left. Never waits.
  virtual bool progress() = 0;
  /// The message of the i-th parcel received, from then to release(). May be written to.
  virtual std::span<std::byte> incoming(std::size_t i) = 0;
  /// The incoming messages are not needed any more.
  virtual void release() = 0;
  /// Whether messages move on only while someone calls progress().
  virtual bool needs_progress() const = 0;

  /// Waits until progress() is true.
  void wait();
};

/// Each of these is collective; the lists name other ranks of `comm`, each at most once, by rank,
/// and fit those of the other ranks. `comm` must outlive the exchange.
std::unique_ptr<Exchange> make_p2p_exchange(const Communicator& comm,
                                            const std::vector<Parcel>& sends,
                                            const std::vector<Parcel>& receives);
std::unique_ptr<Exchange> make_alltoallv_exchange(const Communicator& comm,
                                                  const std::vector<Parcel>& sends,
                                                  const std::vector<Parcel>& receives);
/// A window of shared memory: each rank has a slot for each message it receives, which the sender
/// writes and the receiver reads in place. All ranks of `comm` are on one node.
std::unique_ptr<Exchange> make_shm_exchange(const Communicator& comm,
                                            const std::vector<Parcel>& sends,
                                            const std::vector<Parcel>& receives);

/// Whether the node has the shared memory that make_shm_exchange would take. Collective over
/// `node`; all ranks get the same answer.
bool shm_fits(const Communicator& node, const std::vector<Parcel>& receives);

}  // namespace mla::dist
