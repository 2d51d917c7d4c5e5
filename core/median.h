#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace mla {

/// The middle one of `values`, the mean of the two in the middle where they are even in number; 0
/// of none.
template <class T>
T median(std::vector<T> values) {
  if (values.empty()) return T{0};
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

}  // namespace mla
