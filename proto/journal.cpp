#include "proto/journal.h"

#include <array>
#include <cstring>

#include "core/error.h"

// A record: request; heads begin; heads end; bytes of out; floats of lse (8 bytes each); out; lse.
namespace mla::proto {
namespace {

constexpr std::size_t kPayloadHeadBytes = 5 * 8;

using Bytes = std::span<const std::byte>;

}  // namespace

std::vector<std::byte> encode_slice(const ResultSlice& slice) {
  const std::array numbers{
      static_cast<std::uint64_t>(slice.request), static_cast<std::uint64_t>(slice.heads.begin),
      static_cast<std::uint64_t>(slice.heads.end), static_cast<std::uint64_t>(slice.out.size()),
      static_cast<std::uint64_t>(slice.lse.size())};
  std::vector<std::byte> payload;
  const std::array<Bytes, 3> parts{std::as_bytes(std::span(numbers)), Bytes(slice.out),
                                   std::as_bytes(std::span(slice.lse))};
  for (const Bytes part : parts) {
    payload.insert(payload.end(), part.begin(), part.end());
  }
  return payload;
}

ResultSlice decode_slice(Bytes payload, const std::string& name) {
  if (payload.size() < kPayloadHeadBytes) {
    throw FormatError(name, std::to_string(payload.size()) + " bytes",
                      std::to_string(kPayloadHeadBytes) + " or more");
  }
  std::array<std::uint64_t, 5> numbers{};
  std::memcpy(numbers.data(), payload.data(), sizeof numbers);
  const auto [request, begin, end, out_bytes, lse_floats] = numbers;
  const std::uint64_t rest = payload.size() - kPayloadHeadBytes;
  if (out_bytes > rest || (rest - out_bytes) % 4 != 0 || lse_floats != (rest - out_bytes) / 4) {
    throw FormatError(name, "sizes that contradict each other", "those of out and lse");
  }
  ResultSlice slice{.request = static_cast<std::int64_t>(request),
                    .heads = {static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)},
                    .out = {},
                    .lse = std::vector<float>(lse_floats)};
  const Bytes out = payload.subspan(kPayloadHeadBytes, out_bytes);
  slice.out.assign(out.begin(), out.end());
  const Bytes lse = payload.subspan(kPayloadHeadBytes + out_bytes);
  if (!lse.empty()) std::memcpy(slice.lse.data(), lse.data(), lse.size());
  return slice;
}

}  // namespace mla::proto
