#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/batch.h"
#include "core/partial_fold.h"
#include "dist/route.h"

namespace mla::dist {

/// What `o` travels as; m and l are always fp32.
enum class WireElement : std::uint32_t {
  kFp32 = 4,  ///< exact
  kBf16 = 2,  ///< half the bytes; rounded to nearest even
};

/// What a message says of itself, so that one that is lost, late, swapped or repeated is refused.
struct MessageLabel {
  int from = 0;  ///< ranks of the job
  int to = 0;
  int hop = 0;                 ///< 0: to the owner, or within a node; 1: between nodes
  std::uint64_t sequence = 0;  ///< number of the exchange between these ranks
  WireElement element = WireElement::kFp32;
};

/// Bytes of the message that carries `items`, a multiple of 64.
///
/// A message is a header (magic, element size, base of the exponentials (2), label, number of
/// nodes, bytes) and one record for each node: its place in the batch and an XXH3 of what follows,
/// then m[rows], l[rows], o[rows, d_v], zeros up to a multiple of 64 bytes.
std::int64_t message_bytes(const Batch& batch, WireElement element,
                           std::span<const WireItem> items);

/// Writes the message of `items` to `message`, on `threads` threads; `partials[i]` are the nodes of
/// `items[i]`. @throws MpiError if they are others than `items` says.
void pack_message(const Batch& batch, const MessageLabel& label, std::span<const WireItem> items,
                  std::span<const std::vector<NodePartial>> partials, int threads,
                  std::span<std::byte> message);

/// The partials in a message, by item as in `items`.
struct UnpackedMessage {
  std::vector<std::vector<NodePartial>> partials;
  AlignedBuffer<float> widened;  ///< where they lie, if the message is not of fp32
};

/// Checks and opens a message on `threads` threads; partials of fp32 stay in the message.
/// @throws MpiError if it is not what the label and the items say, or was damaged.
UnpackedMessage unpack_message(const Batch& batch, const MessageLabel& label,
                               std::span<const WireItem> items, int threads,
                               std::span<std::byte> message);

}  // namespace mla::dist
