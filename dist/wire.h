#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/partial.h"
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

/// Rows of a record; the last one of an item has the rest of its rows too, as a small record costs
/// nearly what a large one does. Whoever packs, checks or merges a record has it in the nearest
/// cache from the first byte to the last: 16 KiB where values have 512 elements.
inline constexpr std::int64_t kRowsPerRecord = 8;

/// The blocks of rows, counted from 0, that the records of an item of `rows` rows have.
inline std::int64_t count_blocks(std::int64_t rows) {
  return std::max<std::int64_t>(1, rows / kRowsPerRecord);
}
inline Range rows_of_block(std::int64_t block, std::int64_t rows) {
  const bool is_last = block + 1 == count_blocks(rows);
  return {block * kRowsPerRecord, is_last ? rows : (block + 1) * kRowsPerRecord};
}
/// The most rows of such a block.
inline std::int64_t most_rows_of_block(std::int64_t rows) {
  return rows_of_block(count_blocks(rows) - 1, rows).size();
}

/// Sizes of the parts of a record.
class RecordLayout {
 public:
  static constexpr std::int64_t kHeaderBytes = 64;

  RecordLayout(std::int64_t d_v, WireElement element)
      : d_v_(d_v), element_bytes_(static_cast<std::int64_t>(element)) {}

  std::int64_t d_v() const { return d_v_; }
  std::int64_t sums_bytes(std::int64_t rows) const { return 2 * rows * 4; }
  std::int64_t o_bytes(std::int64_t rows) const { return rows * d_v_ * element_bytes_; }
  std::int64_t payload_bytes(std::int64_t rows) const {
    return round_up(sums_bytes(rows) + o_bytes(rows), kHeaderBytes);
  }
  std::int64_t bytes(std::int64_t rows) const { return kHeaderBytes + payload_bytes(rows); }
  /// Of all records of an item.
  std::int64_t bytes(const WireItem& item) const;

 private:
  std::int64_t d_v_;
  std::int64_t element_bytes_;
};

/// Bytes of the message that carries `items`, a multiple of 64.
std::int64_t message_bytes(const Batch& batch, WireElement element,
                           std::span<const WireItem> items);

/// A message, as either end sees it: a header (magic, element size, base of the exponentials (2),
/// label, number of records, bytes), then for each item, block of rows and node a record: its place
/// in the batch and an XXH3 of what follows, then m[rows], l[rows], o[rows, d_v], zeros up to a
/// multiple of 64 bytes. Different records may be written or opened by different threads.
class Message {
 public:
  /// The message of `items`, which must outlive it.
  Message(const Batch& batch, const MessageLabel& label, std::span<const WireItem> items);

  /// It lies in `bytes`, message_bytes(...) of them, aligned to 64, in exchange `sequence`.
  void place_in(std::span<std::byte> bytes, std::uint64_t sequence);

  std::span<const WireItem> items() const { return items_; }
  WireElement element() const { return label_.element; }

  /// Which record: of which item, block of its rows, and node, each counted from 0.
  struct Place {
    std::size_t item = 0;
    std::int64_t block = 0;
    std::size_t node = 0;
  };

  void write_header();
  /// Writes a record. @pre `partial` has the rows of the block
  void write(Place place, const PartialView& partial);

  /// @throws MpiError if the header is not what the label and the items say
  void check_header() const;
  /// Whether the record is whole and in its place.
  bool is_sound(Place place) const { return is_in_place(place) && is_whole(place); }
  /// A sound record: in `room`, if that has memory, which has the rows of the block; else where it
  /// lies, which needs fp32.
  PartialView open(Place place, const PartialView& room) const;

  /// @throws MpiError that says what is wrong with a record that is not sound
  [[noreturn]] void refuse(Place place) const;

 private:
  std::byte* at(Place place) const;
  std::int64_t rows_at(Place place) const;
  bool is_in_place(Place place) const;
  bool is_whole(Place place) const;
  [[noreturn]] void broken(const std::string& what) const;

  RecordLayout layout_;
  MessageLabel label_;
  std::span<const WireItem> items_;
  std::span<std::byte> bytes_;
  std::vector<std::int64_t> item_offsets_;  // [items + 1], bytes
  std::int64_t records_ = 0;
};

}  // namespace mla::dist
