#include "launch/bench/peers.h"

#include <algorithm>

#include "launch/bench/onednn.h"
#include "launch/bench/openblas.h"

namespace mla::launch::bench {

const float* Peers::widened(std::int64_t elements) {
  if (widened_elements_ < elements) {
    widened_ = proto::MappedMemory();
    widened_ = proto::MappedMemory(4 * elements, "a cache in fp32; see --max-cache");
    widened_elements_ = elements;
    auto* const to = static_cast<float*>(widened_.data());
    const std::uint16_t* const from = pool_.elements().data();
    const bool bf16 = pool_.dtype() == DType::kBf16;
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < elements; ++i) {
      to[i] = bf16 ? to_float(Bf16{from[i]}) : to_float(Fp16{from[i]});
    }
  }
  return static_cast<const float*>(widened_.data());
}

std::vector<std::unique_ptr<Contender>> Peers::contenders(const Workload& workload,
                                                          std::vector<std::string>& notes) {
  std::vector<std::unique_ptr<Contender>> peers;
  const std::int64_t needed = workload.point.tokens() * workload.point.shape.d_qk;
  if (4 * needed > max_cache_bytes_) {
    notes.push_back("openblas: left out for --max-cache, in fp32: " + to_string(workload.point));
  } else if (!openblas_version().empty()) {
    const std::int64_t elements = std::min(static_cast<std::int64_t>(pool_.elements().size()),
                                           std::max(needed, cold_pool_bytes() / 4));
    peers.push_back(make_openblas(workload, pool_, widened(elements), elements, hot_));
  }
  std::string why;
  if (auto peer = make_onednn(workload, pool_, hot_, why)) {
    peers.push_back(std::move(peer));
  } else {
    notes.push_back("onednn: " + why);
  }
  return peers;
}

std::string missing_peers() {
  std::string missing;
  if (openblas_version().empty()) missing = "OpenBLAS (libopenblas-dev)";
  if (onednn_version().empty()) {
    missing += missing.empty() ? "oneDNN (libdnnl-dev)" : " and oneDNN (libdnnl-dev)";
  }
  if (missing.empty()) return {};
  return "--peers: this build lacks " + missing +
         "; install what is missing and run cmake again (docs/building.md)";
}

std::vector<std::string> peer_versions() {
  std::vector<std::string> versions{openblas_version(), onednn_version()};
  std::erase(versions, "");
  return versions;
}

}  // namespace mla::launch::bench
