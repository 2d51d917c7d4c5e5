#pragma once

#include <cstddef>
#include <cstdint>

#include "core/range.h"

namespace mla::kernels {

/// Cuts a workspace into arrays that begin at cache lines. Started at null it only adds up what
/// they take, so one function both sizes a workspace and lays it out.
class WorkspaceCutter {
 public:
  explicit WorkspaceCutter(std::byte* begin) : begin_(begin) {}

  template <class T>
  T* take(std::int64_t count) {
    std::byte* array = begin_ == nullptr ? nullptr : begin_ + bytes_;
    bytes_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(array);
  }

  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* begin_;
  std::int64_t bytes_ = 0;
};

}  // namespace mla::kernels
