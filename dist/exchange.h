#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "dist/communicator.h"

namespace mla::dist {

/// Bytes for or from one other rank.
struct Message {
  int peer = 0;
  AlignedBuffer<std::byte> bytes;
};

/// How many bytes a rank will send us.
struct Incoming {
  int peer = 0;
  std::int64_t bytes = 0;
};

/// Sends every message of `outgoing` and receives those of `incoming`, point to point, all at the
/// same time; both lists follow from the partition, so no sizes are exchanged first. Returns the
/// received messages in the order of `incoming`. Collective over the ranks that the lists name.
std::vector<Message> exchange(const Communicator& comm, const std::vector<Message>& outgoing,
                              const std::vector<Incoming>& incoming);

}  // namespace mla::dist
