#include "dist/wire.h"

#include <cstring>
#include <string>

#include "core/error.h"

namespace mla::dist {
namespace {

struct MessageHeader {
  char magic[8] = {'M', 'L', 'A', 'P', 'A', 'R', 'T', '1'};
  std::uint32_t element_bytes = 4;  // fp32
  std::uint32_t exponent_base = 2;  // m is a base-2 logarithm
  std::int64_t nodes = 0;
  std::int64_t bytes = 0;

  friend bool operator==(const MessageHeader&, const MessageHeader&) = default;
};

struct NodeHeader {
  std::int64_t request = 0;
  std::int64_t kv_head = 0;
  Range heads;
  Range rows;
  std::int64_t level = 0;
  std::int64_t index = 0;

  friend bool operator==(const NodeHeader&, const NodeHeader&) = default;
};

NodeHeader header_of(const WorkItem& item, TreeNode node) {
  return {item.request, item.kv_head, item.heads, item.rows, node.level, node.index};
}

std::int64_t wire_floats(std::int64_t rows, std::int64_t d_v) {
  return rows * (d_v + 2);
}

std::int64_t node_bytes(std::int64_t rows, std::int64_t d_v) {
  return static_cast<std::int64_t>(sizeof(NodeHeader)) +
         wire_floats(rows, d_v) * static_cast<std::int64_t>(sizeof(float));
}

MessageHeader message_header(const Batch& batch, std::span<const WireItem> items) {
  MessageHeader header;
  header.bytes = message_bytes(batch, items);
  for (const WireItem& item : items) header.nodes += static_cast<std::int64_t>(item.nodes.size());
  return header;
}

[[noreturn]] void broken(int peer, const std::string& what) {
  throw MpiError("exchange", "the message of rank " + std::to_string(peer) + " " + what +
                                 "; expected what the partition says");
}

}  // namespace

std::vector<WireItem> wire_items(const Batch& batch, const Partition& partition, int from, int to) {
  std::vector<WireItem> items;
  if (from == to) return items;
  std::vector<Piece> pieces;
  for (const Piece& piece : partition.pieces_of(from)) {
    if (owner_of(partition, piece) == to) pieces.push_back(piece);
  }
  for (const WorkItem& item : work_items(batch, pieces)) {
    const std::int64_t num_chunks = batch.num_chunks(batch.requests[item.request]);
    items.push_back({item, maximal_nodes(item.chunks, num_chunks)});
  }
  return items;
}

std::int64_t message_bytes(const Batch& batch, std::span<const WireItem> items) {
  if (items.empty()) return 0;
  auto bytes = static_cast<std::int64_t>(sizeof(MessageHeader));
  for (const WireItem& item : items) {
    bytes += static_cast<std::int64_t>(item.nodes.size()) *
             node_bytes(item.item.rows.size(), batch.shape.d_v);
  }
  return bytes;
}

MessagePacker::MessagePacker(const Batch& batch, std::span<const WireItem> items, int to)
    : message_{to,
               AlignedBuffer<std::byte>(static_cast<std::size_t>(message_bytes(batch, items)))} {
  const MessageHeader header = message_header(batch, items);
  std::memcpy(message_.bytes.data(), &header, sizeof header);
  position_ = sizeof header;
}

void MessagePacker::add(const WorkItem& item, const NodePartial& node) {
  const PartialView& partial = node.partial;
  if (position_ + node_bytes(partial.rows, partial.d_v) >
      static_cast<std::int64_t>(message_.bytes.size())) {
    throw MpiError("exchange", "more partials than the partition says");
  }
  const auto append = [&](const void* from, std::size_t bytes) {
    std::memcpy(message_.bytes.data() + position_, from, bytes);
    position_ += static_cast<std::int64_t>(bytes);
  };
  const NodeHeader header = header_of(item, node.node);
  append(&header, sizeof header);
  append(partial.m_log2, partial.rows * sizeof(float));
  append(partial.l, partial.rows * sizeof(float));
  append(partial.o, partial.rows * partial.d_v * sizeof(float));
}

Message MessagePacker::finish() {
  if (position_ != static_cast<std::int64_t>(message_.bytes.size())) {
    throw MpiError("exchange", "fewer partials than the partition says");
  }
  return std::move(message_);
}

std::vector<std::vector<NodePartial>> unpack_message(const Batch& batch,
                                                     std::span<const WireItem> expected,
                                                     Message& message) {
  MessageHeader header;
  std::memcpy(&header, message.bytes.data(), sizeof header);
  if (header != message_header(batch, expected)) broken(message.peer, "has a wrong header");

  std::vector<std::vector<NodePartial>> partials;
  std::byte* at = message.bytes.data() + sizeof header;
  for (const WireItem& item : expected) {
    const std::int64_t rows = item.item.rows.size();
    std::vector<NodePartial>& nodes = partials.emplace_back();
    for (const TreeNode node : item.nodes) {
      NodeHeader place;
      std::memcpy(&place, at, sizeof place);
      if (place != header_of(item.item, node)) {
        broken(message.peer, "holds a node of request " + std::to_string(place.request) +
                                 " where one of request " + std::to_string(item.item.request) +
                                 " belongs");
      }
      auto* floats = reinterpret_cast<float*>(at + sizeof place);
      nodes.push_back({node, {floats, floats + rows, floats + 2 * rows, rows, batch.shape.d_v}});
      at += node_bytes(rows, batch.shape.d_v);
    }
  }
  return partials;
}

}  // namespace mla::dist
