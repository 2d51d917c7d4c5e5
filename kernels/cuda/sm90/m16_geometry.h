#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/cuda/device_plan.h"

namespace mla::kernels::cuda {

/// The sizes that a team of decode_m16 can have, in blocks.
inline constexpr std::array<int, 4> kM16TeamSizes{1, 2, 4, 8};

/// Teams of a launch, at most.
inline constexpr int kM16MostTeams = 128;

/// Teams of each of those sizes that can run at the same time.
using M16Residency = std::array<int, kM16TeamSizes.size()>;

/// What a Hopper GPU is sure to run at the same time: clusters larger than two do not fill every
/// part of the chip.
M16Residency m16_residency(int multiprocessors);

/// Microseconds that one run takes with that geometry, by a simple model: the memory's stream or
/// the steps of the busiest team, whichever is longer, then merging.
double m16_predicted_us(std::span<const DeviceItem> items, const KernelGeometry& geometry);

/// `teams` of `blocks` each, for values of `d_v` elements.
KernelGeometry m16_geometry_of(int teams, int blocks, std::int64_t d_v);

/// The geometry that is predicted fastest.
KernelGeometry m16_geometry(std::span<const DeviceItem> items, std::int64_t d_v,
                            const M16Residency& residency);

}  // namespace mla::kernels::cuda
