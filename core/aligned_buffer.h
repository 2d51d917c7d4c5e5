#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "core/range.h"

namespace mla {

/// An uninitialised array of trivial elements, aligned to cache lines (to 2 MiB pages when it is
/// that large). Pages become resident where they are first touched.
/// @throws std::bad_alloc
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    constexpr std::size_t kLine = 64;
    constexpr std::size_t kHugePage = std::size_t{1} << 21;
    const std::size_t alignment = size * sizeof(T) >= kHugePage ? kHugePage : kLine;
    const auto bytes =
        round_up(static_cast<std::int64_t>(size * sizeof(T)), static_cast<std::int64_t>(alignment));
    data_.reset(static_cast<T*>(std::aligned_alloc(alignment, static_cast<std::size_t>(bytes))));
    if (!data_) throw std::bad_alloc();
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::span<T> span() { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::size_t size_ = 0;
  std::unique_ptr<T[], Free> data_;
};

}  // namespace mla
