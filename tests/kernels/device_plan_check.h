#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/device_plan.h"

namespace mla::kernels::cuda {

inline constexpr std::int64_t kPlanDv = 32;

/// A batch's items, each with a `q` of its own by which its parts are known.
struct PlanProblem {
  PlanSizes sizes{kPlanDv, 512, true};
  KernelGeometry geometry{4, 1, 64, 64};
  std::vector<DeviceItem> items;

  PlanProblem& exact(bool exact) {
    sizes.exact = exact;
    return *this;
  }
  PlanProblem& add(std::int64_t context_len, std::int64_t rows = 16) {
    DeviceItem item;
    item.q = std::ssize(items);
    item.heads = rows;
    item.context_len = context_len;
    item.rows = {0, rows};
    item.chunks = {0, ceil_div(context_len, sizes.chunk_tokens)};
    items.push_back(item);
    return *this;
  }
  PlanProblem& chunks(Range chunks) {
    items.back().chunks = chunks;
    return *this;
  }
  DevicePlan plan() const { return make_device_plan(items, sizes, geometry); }
};

/// All parts with work, as the teams come to them.
std::vector<std::vector<const Part*>> parts_of_teams(const DevicePlan& plan);

/// What is wrong with the problem's plan; empty if nothing is.
std::string errors_of(const PlanProblem& problem);

}  // namespace mla::kernels::cuda
