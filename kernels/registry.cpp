#include "core/error.h"
#include "kernels/backend.h"
#include "kernels/cpu/amx/backend.h"
#include "kernels/cpu/avx512/backend.h"
#include "kernels/cpu/portable/backend.h"
#include "kernels/reference/backend.h"

namespace mla::kernels {

const std::vector<const Backend*>& backends() {
  static const std::vector<const Backend*> list{&amx::backend(), &avx512::backend(),
                                                &portable::backend(), &reference::backend()};
  return list;
}

const Backend& find_backend(std::string_view name) {
  std::string choices = "auto";
  for (const Backend* backend : backends()) {
    choices += ", " + std::string(backend->name());
  }
  for (const Backend* backend : backends()) {
    if (name != "auto" && name != backend->name()) continue;
    const std::string reason = backend->why_unavailable();
    if (reason.empty()) return *backend;
    if (name == backend->name()) {
      throw Unsupported("--backend", name, "one this machine can run (" + choices + "): " + reason);
    }
  }
  throw InvalidArgument("--backend", name, "one of " + choices);
}

}  // namespace mla::kernels
