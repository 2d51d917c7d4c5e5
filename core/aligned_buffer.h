#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "core/huge_pages.h"
#include "core/range.h"

namespace mla {

/// An uninitialised array of trivial elements, aligned to cache lines; to 2 MiB and, if the system
/// grants it, on huge pages when it is that large. Pages become resident where they are first
/// touched.
/// @throws std::bad_alloc
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    constexpr std::int64_t kLine = 64;
    const auto bytes = static_cast<std::int64_t>(size * sizeof(T));
    const std::int64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : kLine;
    const std::int64_t padded = round_up(bytes, alignment);
    data_.reset(static_cast<T*>(
        std::aligned_alloc(static_cast<std::size_t>(alignment), static_cast<std::size_t>(padded))));
    if (!data_) throw std::bad_alloc();
    advise_huge_pages(data_.get(), padded);
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
