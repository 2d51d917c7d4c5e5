#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace mla::proto {

/// XXH3-64 of bytes.
std::uint64_t xxh3(std::span<const std::byte> bytes);
std::uint64_t xxh3(std::string_view text);

/// XXH3-64 of bytes that come in parts.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();

  void update(std::span<const std::byte> bytes);
  std::uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mla::proto
