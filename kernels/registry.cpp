#include "core/error.h"
#include "kernels/backend.h"
#include "kernels/cpu/amx/backend.h"
#include "kernels/cpu/avx2/backend.h"
#include "kernels/cpu/avx512/backend.h"
#include "kernels/cpu/portable/backend.h"
#include "kernels/cuda/backend.h"
#include "kernels/reference/backend.h"

namespace mla::kernels {

namespace {

template <class AnyBackend>
const AnyBackend& find(const std::vector<const AnyBackend*>& list, std::string_view name) {
  std::string choices = "auto";
  for (const AnyBackend* backend : list) choices += ", " + std::string(backend->name());
  for (const AnyBackend* backend : list) {
    if (name != "auto" && name != backend->name()) continue;
    const std::string reason = backend->why_unavailable();
    if (reason.empty()) return *backend;
    if (name == backend->name()) {
      throw Unsupported("--backend", name, "one this machine can run (" + choices + "): " + reason);
    }
  }
  throw InvalidArgument("--backend", name, "one of " + choices);
}

}  // namespace

const std::vector<const HostBackend*>& host_backends() {
  static const std::vector<const HostBackend*> list{&amx::backend(),         &avx512::backend(),
                                                    &avx512::fp32_backend(), &avx2::backend(),
                                                    &portable::backend(),    &reference::backend()};
  return list;
}

const std::vector<const Backend*>& backends() {
  static const std::vector<const Backend*> list = [] {
    std::vector<const Backend*> all{&cuda::sm90_backend(), &cuda::simt_backend()};
    all.insert(all.end(), host_backends().begin(), host_backends().end());
    return all;
  }();
  return list;
}

const Backend& find_backend(std::string_view name) {
  return find(backends(), name);
}

const Backend& find_backend(std::string_view name, const Batch& batch) {
  const Backend& first = find_backend(name);
  const std::string reason = first.why_unsupported(batch);
  if (reason.empty()) return first;
  for (const Backend* backend : backends()) {
    if (name != "auto" || !backend->why_unavailable().empty()) continue;
    if (backend->why_unsupported(batch).empty()) return *backend;
  }
  throw Unsupported("--backend", name, "one that can decode this batch: " + reason);
}

const HostBackend& find_host_backend(std::string_view name) {
  return find(host_backends(), name);
}

}  // namespace mla::kernels
