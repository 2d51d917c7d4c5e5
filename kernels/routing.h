#pragma once

#include <cstdint>
#include <span>

#include "core/model_config.h"

namespace mla::kernels {

/// Floats of scratch that `choose_experts` needs.
std::int64_t routing_scratch_floats(const MoeConfig& moe);

/// The experts of one token and their weights, as MoeConfig describes it; ties go to the lower
/// index. Whatever the logits (NaN, too), the experts are top_k different ones, in ascending order.
/// @param logits [num_experts + num_identity_experts], the router's
/// @param bias of the same size, or empty
/// @param experts,weights [top_k]
void choose_experts(const MoeConfig& moe, std::span<const float> logits,
                    std::span<const float> bias, std::span<float> scratch, std::int32_t* experts,
                    float* weights) noexcept;

}  // namespace mla::kernels
