#include "dist/wire.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include <xxhash.h>

#include "core/dtype.h"
#include "core/error.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kLine = 64;

struct MessageHeader {
  char magic[8] = {'M', 'L', 'A', 'P', 'A', 'R', 'T', '2'};
  std::uint32_t element_bytes = 4;
  std::uint32_t exponent_base = 2;  // m is a base-2 logarithm
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int64_t hop = 0;
  std::uint64_t sequence = 0;
  std::int64_t nodes = 0;
  std::int64_t bytes = 0;
  std::int64_t reserved = 0;

  friend bool operator==(const MessageHeader&, const MessageHeader&) = default;
};
static_assert(sizeof(MessageHeader) == kLine);

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
static_assert(sizeof(NodeHeader) == kLine);

/// One record of a message.
struct Record {
  const WireItem* item = nullptr;
  std::size_t item_index = 0;
  std::size_t node_index = 0;
  std::int64_t offset = 0;  // bytes into the message

  TreeNode node() const { return item->nodes[node_index]; }
  std::int64_t rows() const { return item->item.rows.size(); }
};

/// Sizes of the parts of a record.
class RecordLayout {
 public:
  RecordLayout(const Batch& batch, WireElement element)
      : d_v_(batch.shape.d_v), element_bytes_(static_cast<std::int64_t>(element)) {}

  std::int64_t sums_bytes(std::int64_t rows) const { return 2 * rows * 4; }
  std::int64_t o_bytes(std::int64_t rows) const { return rows * d_v_ * element_bytes_; }
  std::int64_t payload_bytes(std::int64_t rows) const {
    return round_up(sums_bytes(rows) + o_bytes(rows), kLine);
  }
  std::int64_t bytes(std::int64_t rows) const { return kLine + payload_bytes(rows); }

 private:
  std::int64_t d_v_;
  std::int64_t element_bytes_;
};

std::vector<Record> records_of(const RecordLayout& layout, std::span<const WireItem> items) {
  std::vector<Record> records;
  std::int64_t offset = sizeof(MessageHeader);
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t n = 0; n < items[i].nodes.size(); ++n) {
      records.push_back({&items[i], i, n, offset});
      offset += layout.bytes(items[i].item.rows.size());
    }
  }
  return records;
}

MessageHeader header_of(const MessageLabel& label, std::size_t nodes, std::size_t bytes) {
  MessageHeader header;
  header.element_bytes = static_cast<std::uint32_t>(label.element);
  header.from = label.from;
  header.to = label.to;
  header.hop = label.hop;
  header.sequence = label.sequence;
  header.nodes = static_cast<std::int64_t>(nodes);
  header.bytes = static_cast<std::int64_t>(bytes);
  return header;
}

NodePlace place_of(const Record& record) {
  const WorkItem& item = record.item->item;
  return {item.request,        item.heads,          item.rows,
          record.node().index, record.node().level, static_cast<std::int32_t>(item.kv_head)};
}

std::uint64_t checksum_of(const std::byte* payload, std::int64_t bytes) {
  return XXH3_64bits(payload, static_cast<std::size_t>(bytes));
}

void narrow(const float* from, std::int64_t count, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_bf16(from[i]).bits;
}

void widen(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_float(Bf16{from[i]});
}

void pack_record(const RecordLayout& layout, WireElement element, const Record& record,
                 const PartialView& partial, std::byte* at) {
  const std::int64_t rows = record.rows();
  std::byte* const payload = at + kLine;
  std::memcpy(payload, partial.m_log2, rows * 4);
  std::memcpy(payload + rows * 4, partial.l, rows * 4);
  std::byte* const o = payload + layout.sums_bytes(rows);
  if (element == WireElement::kFp32) {
    std::memcpy(o, partial.o, layout.o_bytes(rows));
  } else {
    narrow(partial.o, rows * partial.d_v, reinterpret_cast<std::uint16_t*>(o));
  }
  std::byte* const end = o + layout.o_bytes(rows);
  std::fill(end, payload + layout.payload_bytes(rows), std::byte{0});
  const NodeHeader header{place_of(record), checksum_of(payload, layout.payload_bytes(rows))};
  std::memcpy(at, &header, sizeof header);
}

/// Empty if the record at `at` is whole and in its place, else what is wrong.
std::string fault_of(const RecordLayout& layout, const Record& record, const std::byte* at) {
  NodeHeader header;
  std::memcpy(&header, at, sizeof header);
  const NodePlace expected = place_of(record);
  if (header.place != expected) {
    return "holds a node of request " + std::to_string(header.place.request) +
           " where one of request " + std::to_string(expected.request) + " belongs";
  }
  if (header.checksum != checksum_of(at + kLine, layout.payload_bytes(record.rows()))) {
    return "was damaged: wrong checksum of a node of request " + std::to_string(expected.request);
  }
  return {};
}

PartialView widened_record(const RecordLayout& layout, const Record& record, std::int64_t d_v,
                           const std::byte* at, float* to) {
  const std::int64_t rows = record.rows();
  const PartialView partial = partial_at(to, rows, d_v);
  const std::byte* const payload = at + kLine;
  std::memcpy(partial.m_log2, payload, rows * 4);
  std::memcpy(partial.l, payload + rows * 4, rows * 4);
  widen(reinterpret_cast<const std::uint16_t*>(payload + layout.sums_bytes(rows)), rows * d_v,
        partial.o);
  return partial;
}

PartialView view_of_record(const RecordLayout& layout, const Record& record, std::int64_t d_v,
                           std::byte* at) {
  const std::int64_t rows = record.rows();
  auto* const sums = reinterpret_cast<float*>(at + kLine);
  auto* const o = reinterpret_cast<float*>(at + kLine + layout.sums_bytes(rows));
  return {sums, sums + rows, o, rows, d_v};
}

[[noreturn]] void broken(int peer, const std::string& what) {
  throw MpiError("exchange", "the message of rank " + std::to_string(peer) + " " + what +
                                 "; expected what the partition says");
}

void check_nodes(const WireItem& item, const std::vector<NodePartial>& partials) {
  const bool same =
      std::equal(item.nodes.begin(), item.nodes.end(), partials.begin(), partials.end(),
                 [](TreeNode node, const NodePartial& partial) { return node == partial.node; });
  if (!same) {
    throw MpiError("exchange", "the partials of request " + std::to_string(item.item.request) +
                                   " at hand are not those of the partition");
  }
}

}  // namespace

std::int64_t message_bytes(const Batch& batch, WireElement element,
                           std::span<const WireItem> items) {
  const RecordLayout layout(batch, element);
  std::int64_t bytes = sizeof(MessageHeader);
  for (const WireItem& item : items) {
    bytes += static_cast<std::int64_t>(item.nodes.size()) * layout.bytes(item.item.rows.size());
  }
  return bytes;
}

void pack_message(const Batch& batch, const MessageLabel& label, std::span<const WireItem> items,
                  std::span<const std::vector<NodePartial>> partials, int threads,
                  std::span<std::byte> message) {
  for (std::size_t i = 0; i < items.size(); ++i) check_nodes(items[i], partials[i]);
  const RecordLayout layout(batch, label.element);
  const std::vector<Record> records = records_of(layout, items);
  const MessageHeader header = header_of(label, records.size(), message.size());
  std::memcpy(message.data(), &header, sizeof header);
  const auto count = static_cast<std::int64_t>(records.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (std::int64_t r = 0; r < count; ++r) {
    const Record& record = records[r];
    pack_record(layout, label.element, record,
                partials[record.item_index][record.node_index].partial,
                message.data() + record.offset);
  }
}

UnpackedMessage unpack_message(const Batch& batch, const MessageLabel& label,
                               std::span<const WireItem> items, int threads,
                               std::span<std::byte> message) {
  const RecordLayout layout(batch, label.element);
  const std::vector<Record> records = records_of(layout, items);
  MessageHeader header;
  std::memcpy(&header, message.data(), sizeof header);
  if (header != header_of(label, records.size(), message.size())) {
    broken(label.from, "has a wrong header");
  }
  const std::int64_t d_v = batch.shape.d_v;
  UnpackedMessage unpacked;
  std::vector<std::int64_t> float_offsets{0};
  for (const WireItem& item : items) unpacked.partials.emplace_back(item.nodes.size());
  if (label.element != WireElement::kFp32) {
    for (const Record& record : records) {
      float_offsets.push_back(float_offsets.back() + partial_floats(record.rows(), d_v));
    }
    unpacked.widened = AlignedBuffer<float>(static_cast<std::size_t>(float_offsets.back()));
  }
  const auto count = static_cast<std::int64_t>(records.size());
  std::atomic<std::int64_t> first_fault{count};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (std::int64_t r = 0; r < count; ++r) {
    const Record& record = records[r];
    std::byte* const at = message.data() + record.offset;
    if (!fault_of(layout, record, at).empty()) first_fault = r;
    unpacked.partials[record.item_index][record.node_index] = {
        record.node(),
        label.element == WireElement::kFp32
            ? view_of_record(layout, record, d_v, at)
            : widened_record(layout, record, d_v, at, unpacked.widened.data() + float_offsets[r])};
  }
  if (first_fault < count) {
    const Record& record = records[first_fault];
    broken(label.from, fault_of(layout, record, message.data() + record.offset));
  }
  return unpacked;
}

}  // namespace mla::dist
