#include "dist/wire.h"

#include <algorithm>
#include <cstring>
#include <string>

#ifdef MLA_HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#include "core/dtype.h"
#include "core/error.h"
#include "core/every_cpu.h"

namespace mla::dist {
namespace {

struct MessageHeader {
  char magic[8] = {'M', 'L', 'A', 'P', 'A', 'R', 'T', '3'};
  std::uint32_t element_bytes = 4;
  std::uint32_t exponent_base = 2;  // m is a base-2 logarithm
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int64_t hop = 0;
  std::uint64_t sequence = 0;
  std::int64_t records = 0;
  std::int64_t bytes = 0;
  std::int64_t reserved = 0;

  friend bool operator==(const MessageHeader&, const MessageHeader&) = default;
};
static_assert(sizeof(MessageHeader) % 64 == 0);

/// Where a node belongs.
struct NodePlace {
  std::int64_t request = 0;
  Range heads;
  Range rows;
  std::int64_t index = 0;
  std::int32_t level = 0;
  std::int32_t kv_head = 0;

  friend bool operator==(const NodePlace&, const NodePlace&) = default;
};

struct NodeHeader {
  NodePlace place;
  std::uint64_t checksum = 0;  // of the bytes that follow
};
static_assert(sizeof(NodeHeader) == RecordLayout::kHeaderBytes);

MessageHeader header_of(const MessageLabel& label, std::int64_t records, std::size_t bytes) {
  MessageHeader header;
  header.element_bytes = static_cast<std::uint32_t>(label.element);
  header.from = label.from;
  header.to = label.to;
  header.hop = label.hop;
  header.sequence = label.sequence;
  header.records = records;
  header.bytes = static_cast<std::int64_t>(bytes);
  return header;
}

NodePlace node_place(const WireItem& item, const Message::Place& place) {
  const Range rows = rows_of_block(place.block, item.item.rows.size());
  const std::int64_t first = item.item.rows.begin;
  const TreeNode node = item.nodes[place.node];
  return {item.item.request, item.item.heads, {first + rows.begin, first + rows.end},
          node.index,        node.level,      static_cast<std::int32_t>(item.item.kv_head)};
}

std::uint64_t checksum_of(const std::byte* payload, std::int64_t bytes) {
  return XXH3_64bits(payload, static_cast<std::size_t>(bytes));
}

MLA_FOR_EVERY_CPU
void narrow(const float* from, std::int64_t count, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_bf16(from[i]).bits;
}

MLA_FOR_EVERY_CPU
void widen(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_float(Bf16{from[i]});
}

NodeHeader header_at(const std::byte* record) {
  NodeHeader header;
  std::memcpy(&header, record, sizeof header);
  return header;
}

}  // namespace

std::int64_t RecordLayout::bytes(const WireItem& item) const {
  const std::int64_t rows = item.item.rows.size();
  const std::int64_t each =
      (count_blocks(rows) - 1) * bytes(kRowsPerRecord) + bytes(most_rows_of_block(rows));
  return each * std::ssize(item.nodes);
}

std::int64_t message_bytes(const Batch& batch, WireElement element,
                           std::span<const WireItem> items) {
  const RecordLayout layout(batch.shape.d_v, element);
  std::int64_t bytes = sizeof(MessageHeader);
  for (const WireItem& item : items) bytes += layout.bytes(item);
  return bytes;
}

Message::Message(const Batch& batch, const MessageLabel& label, std::span<const WireItem> items)
    : layout_(batch.shape.d_v, label.element), label_(label), items_(items) {
  item_offsets_.reserve(items.size() + 1);
  item_offsets_.push_back(sizeof(MessageHeader));
  for (const WireItem& item : items) {
    item_offsets_.push_back(item_offsets_.back() + layout_.bytes(item));
    records_ += count_blocks(item.item.rows.size()) * std::ssize(item.nodes);
  }
}

void Message::place_in(std::span<std::byte> bytes, std::uint64_t sequence) {
  bytes_ = bytes;
  label_.sequence = sequence;
}

void Message::write_header() {
  const MessageHeader header = header_of(label_, records_, bytes_.size());
  std::memcpy(bytes_.data(), &header, sizeof header);
}

void Message::check_header() const {
  MessageHeader header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (header != header_of(label_, records_, bytes_.size())) broken("has a wrong header");
}

std::int64_t Message::rows_at(Place place) const {
  return rows_of_block(place.block, items_[place.item].item.rows.size()).size();
}

std::byte* Message::at(Place place) const {
  const std::int64_t blocks_before =
      place.block * std::ssize(items_[place.item].nodes) * layout_.bytes(kRowsPerRecord);
  return bytes_.data() + item_offsets_[place.item] + blocks_before +
         static_cast<std::int64_t>(place.node) * layout_.bytes(rows_at(place));
}

void Message::write(Place place, const PartialView& partial) {
  const std::int64_t rows = rows_at(place);
  std::byte* const record = at(place);
  std::byte* const payload = record + RecordLayout::kHeaderBytes;
  std::memcpy(payload, partial.m_log2, rows * 4);
  std::memcpy(payload + rows * 4, partial.l, rows * 4);
  std::byte* const o = payload + layout_.sums_bytes(rows);
  if (label_.element == WireElement::kFp32) {
    std::memcpy(o, partial.o, layout_.o_bytes(rows));
  } else {
    narrow(partial.o, rows * layout_.d_v(), reinterpret_cast<std::uint16_t*>(o));
  }
  std::fill(o + layout_.o_bytes(rows), payload + layout_.payload_bytes(rows), std::byte{0});
  const NodeHeader header{node_place(items_[place.item], place),
                          checksum_of(payload, layout_.payload_bytes(rows))};
  std::memcpy(record, &header, sizeof header);
}

PartialView Message::open(Place place, const PartialView& room) const {
  const std::int64_t rows = rows_at(place);
  std::byte* const payload = at(place) + RecordLayout::kHeaderBytes;
  std::byte* const o = payload + layout_.sums_bytes(rows);
  auto* const sums = reinterpret_cast<float*>(payload);
  if (room.o == nullptr) {
    return {sums, sums + rows, reinterpret_cast<float*>(o), rows, layout_.d_v()};
  }
  std::memcpy(room.m_log2, sums, rows * 4);
  std::memcpy(room.l, sums + rows, rows * 4);
  if (label_.element == WireElement::kFp32) {
    std::memcpy(room.o, o, layout_.o_bytes(rows));
  } else {
    widen(reinterpret_cast<const std::uint16_t*>(o), rows * layout_.d_v(), room.o);
  }
  return room;
}

bool Message::is_in_place(Place place) const {
  return header_at(at(place)).place == node_place(items_[place.item], place);
}

bool Message::is_whole(Place place) const {
  const std::byte* const record = at(place);
  const std::byte* const payload = record + RecordLayout::kHeaderBytes;
  return header_at(record).checksum == checksum_of(payload, layout_.payload_bytes(rows_at(place)));
}

void Message::refuse(Place place) const {
  const std::int64_t expected = items_[place.item].item.request;
  if (is_in_place(place)) {
    broken("was damaged: wrong checksum of a node of request " + std::to_string(expected));
  }
  broken("holds a node of request " + std::to_string(header_at(at(place)).place.request) +
         " where one of request " + std::to_string(expected) + " belongs");
}

void Message::broken(const std::string& what) const {
  throw MpiError("exchange", "the message of rank " + std::to_string(label_.from) + " " + what +
                                 "; expected what the partition says");
}

}  // namespace mla::dist
