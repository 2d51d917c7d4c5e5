#include "kernels/cuda/backend.h"

#include "core/error.h"
#include "kernels/decode_operator.h"

#ifdef MLA_HAVE_CUDA
#include "kernels/cuda/batch_args.h"
#include "kernels/cuda/device_decoder.h"
#include "kernels/cuda/device_operator.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/runtime.h"
#endif

namespace mla::kernels::cuda {
namespace {

#ifdef MLA_HAVE_CUDA

/// A range of compute capabilities, ten times the number.
struct Capabilities {
  int least = 0;
  int most = 0;
};

std::string number(int capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

class DeviceBackend final : public Backend {
 public:
  DeviceBackend(std::string_view name, const KernelList& kernels, Capabilities capabilities)
      : name_(name), kernels_(kernels), capabilities_(capabilities) {}

  std::string_view name() const override { return name_; }

  std::string why_unavailable() const override {
    if (kernels_.empty()) return "this build has no kernels for it";
    std::string reason;
    const int devices = count_devices(&reason);
    for (int device = 0; device < devices; ++device) {
      const int capability = compute_capability(device);
      if (capability >= capabilities_.least && capability <= capabilities_.most) continue;
      return "GPU " + std::to_string(device) + " has compute capability " + number(capability) +
             (capabilities_.least == capabilities_.most ? ", not " : ", less than ") +
             number(capabilities_.least);
    }
    return reason;
  }

  std::vector<Gpu> gpus() const override {
    std::vector<Gpu> list;
    const int devices = count_devices();
    for (int device = 0; device < devices; ++device) {
      list.push_back({device_name(device), device_bus_id(device)});
    }
    return list;
  }

  std::string why_unsupported(const Batch& batch) const override {
    std::string reason;
    find_kernel(kernels_, args_of(batch, contiguous_layout(batch), true), {}, reason);
    return reason;
  }

  std::unique_ptr<NodeDecoder> make_decoder(const Batch& batch, std::span<const Piece> pieces,
                                            const RankInputs& inputs,
                                            const DecoderOptions& options) const override {
    use_device(options.gpu);
    return make_device_decoder(name_, kernels_, batch, pieces, inputs, options);
  }

  std::unique_ptr<DecodeOperator> make_operator(const Batch& batch, const OperatorLayout& layout,
                                                const OperatorOptions& options) const override {
    return make_device_operator(name_, kernels_, batch, layout, options);
  }

 private:
  std::string_view name_;
  const KernelList& kernels_;
  Capabilities capabilities_;
};

const Backend& sm90() {
  static const DeviceBackend instance("sm90", sm90_kernels(), {90, 90});
  return instance;
}

const Backend& simt() {
  static const DeviceBackend instance("simt", simt_kernels(), {75, 999});
  return instance;
}

#else

class DeviceBackend final : public Backend {
 public:
  explicit DeviceBackend(std::string_view name) : name_(name) {}

  std::string_view name() const override { return name_; }
  std::string why_unavailable() const override {
    return "this build has no CUDA: configure with -D MLA_WITH_CUDA=ON and a CUDA 12+ toolkit";
  }
  std::unique_ptr<NodeDecoder> make_decoder(const Batch&, std::span<const Piece>, const RankInputs&,
                                            const DecoderOptions&) const override {
    throw NotCompiled(name_, "a build configured with -D MLA_WITH_CUDA=ON and a CUDA 12+ toolkit");
  }
  std::unique_ptr<DecodeOperator> make_operator(const Batch&, const OperatorLayout&,
                                                const OperatorOptions&) const override {
    throw NotCompiled(name_, "a build configured with -D MLA_WITH_CUDA=ON and a CUDA 12+ toolkit");
  }

 private:
  std::string_view name_;
};

const Backend& sm90() {
  static const DeviceBackend instance("sm90");
  return instance;
}

const Backend& simt() {
  static const DeviceBackend instance("simt");
  return instance;
}

#endif

}  // namespace

const Backend& sm90_backend() {
  return sm90();
}
const Backend& simt_backend() {
  return simt();
}

}  // namespace mla::kernels::cuda
