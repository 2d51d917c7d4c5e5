#include "proto/checkpoint.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "core/dtype.h"
#include "core/error.h"
#include "proto/json_reader.h"
#include "proto/safetensors.h"
#include "proto/weight_names.h"

namespace mla::proto {
namespace {

constexpr std::size_t kMostIndexBytes = std::size_t{1} << 28;
constexpr int kIndexDepth = 2;
const std::string kScaleSuffix = "_scale_inv";

struct TypeName {
  std::string_view name;
  WeightType type;
};
constexpr std::array<TypeName, 4> kTypes{{{"BF16", WeightType::kBf16},
                                          {"F16", WeightType::kFp16},
                                          {"F32", WeightType::kFp32},
                                          {"F8_E4M3", WeightType::kFp8E4m3}}};

/// Whether elements [first, first + count) are numbers: their exponents tell.
template <class Bits>
bool all_finite(const void* data, std::int64_t first, std::int64_t count, Bits mask) {
  const auto* const elements = static_cast<const Bits*>(data) + first;
  bool special = false;
  for (std::int64_t i = 0; i < count; ++i) {
    special |= static_cast<Bits>(elements[i] & mask) == mask;
  }
  return !special;
}

bool all_finite(const void* data, WeightType type, std::int64_t first, std::int64_t count) {
  switch (type) {
    case WeightType::kBf16:
      return all_finite<std::uint16_t>(data, first, count, 0x7f80);
    case WeightType::kFp16:
      return all_finite<std::uint16_t>(data, first, count, 0x7c00);
    case WeightType::kFp32:
      return all_finite<std::uint32_t>(data, first, count, 0x7f800000);
    case WeightType::kFp8E4m3:
      return all_finite<std::uint8_t>(data, first, count, 0x7f);
  }
  return false;
}

float element(const void* data, WeightType type, std::int64_t i) {
  if (type == WeightType::kBf16) return to_float(static_cast<const Bf16*>(data)[i]);
  if (type == WeightType::kFp16) return to_float(static_cast<const Fp16*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

class Checkpoint final : public WeightStorage, public WeightSource {
 public:
  explicit Checkpoint(const std::filesystem::path& folder) : folder_(folder) {
    const std::filesystem::path index = folder / "model.safetensors.index.json";
    if (std::filesystem::exists(index)) {
      read_index(index);
    } else {
      add_shard("model.safetensors");
    }
  }

  MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) override {
    const Found found = get(name, {rows, cols});
    MatrixView view{.data = found.data, .type = found.type, .rows = rows, .cols = cols};
    if (view.type == WeightType::kFp8E4m3) add_scales(name, view);
    tensors_[view.data] = name;
    return view;
  }

  MatrixView stack(const std::string& name, std::int64_t count, std::int64_t rows,
                   std::int64_t cols) override {
    if (!shard_of_.contains(name)) return {};
    const Found found = get(name, {count, rows, cols});
    if (found.type == WeightType::kFp8E4m3) refuse_type(name, found.dtype, "BF16, F16 or F32");
    tensors_[found.data] = name;
    return {.data = found.data, .type = found.type, .rows = count * rows, .cols = cols};
  }

  std::vector<float> vector(const std::string& name, std::int64_t size) override {
    const Found found = get(name, {size});
    if (found.type == WeightType::kFp8E4m3) refuse_type(name, found.dtype, "BF16, F16 or F32");
    check_finite(name, found.data, found.type, {0, size}, 1);
    std::vector<float> result;
    for (std::int64_t i = 0; i < size; ++i) result.push_back(element(found.data, found.type, i));
    return result;
  }

  void prepare(const MatrixView& matrix, Range rows) const override {
    const std::string& name = std::prev(tensors_.upper_bound(matrix.data))->second;
    check_finite(name, matrix.data, matrix.type, rows, matrix.cols);
    if (matrix.scales == nullptr || rows.empty()) return;
    const Range blocks{rows.begin / kScaleBlock, ceil_div(rows.end, kScaleBlock)};
    check_finite(name + kScaleSuffix, matrix.scales, WeightType::kFp32, blocks, matrix.scale_cols);
  }

  /// @throws FormatError if a tensor of the layers of `config` was not asked for.
  void refuse_others(const ModelConfig& config) const {
    const bool has_identities = config.moe.num_identity_experts > 0;
    for (const auto& [name, shard] : shard_of_) {
      const std::int64_t layer = layer_of(config, name);
      if (layer < 0 || layer >= config.num_layers || used_.contains(name)) continue;
      // Old exports keep tables that are computed here; transformers give identity experts matrices
      // that nothing uses.
      if (name.ends_with("rotary_emb.inv_freq")) continue;
      if (has_identities && name.find(".experts.") != std::string::npos) continue;
      throw FormatError(tensor_field(name), "present",
                        "absent: this " + config.family + " has no use for it");
    }
  }

 private:
  struct Found {
    const std::byte* data;
    WeightType type;
    std::string_view dtype;  // as the file says it
  };

  void read_index(const std::filesystem::path& path) {
    const nlohmann::json parsed = parse_json_file(path, kMostIndexBytes, kIndexDepth);
    const JsonField map = JsonField(parsed, "file '" + path.string() + "'").at("weight_map");
    if (!map.value().is_object()) map.expected("an object");
    for (const auto& [name, file] : map.value().items()) {
      const std::string shard = file.is_string() ? file.get<std::string>() : "";
      if (shard.empty() || shard.find('/') != std::string::npos) {
        map.at(name).expected("the name of a file beside it");
      }
      shard_of_[name] = shard;
    }
  }

  void add_shard(const std::string& shard) {
    for (const TensorInfo& tensor : open(shard).tensors()) shard_of_[tensor.name] = shard;
  }

  const SafetensorsFile& open(const std::string& shard) {
    const auto found = shards_.find(shard);
    if (found != shards_.end()) return found->second;
    return shards_.try_emplace(shard, folder_ / shard).first->second;
  }

  std::string tensor_field(const std::string& name) const {
    const auto shard = shard_of_.find(name);
    const std::filesystem::path place =
        shard == shard_of_.end() ? folder_ : folder_ / shard->second;
    return "checkpoint '" + place.string() + "': tensor '" + name + "'";
  }

  [[noreturn]] void refuse_type(const std::string& name, std::string_view type,
                                std::string_view expected) const {
    throw FormatError(tensor_field(name) + ": dtype", type, expected);
  }

  /// A tensor of this shape.
  Found get(const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto shard = shard_of_.find(name);
    if (shard == shard_of_.end()) {
      throw FormatError(tensor_field(name), "missing", "present, with shape " + shape_text(shape));
    }
    const SafetensorsFile& file = open(shard->second);
    const TensorInfo* const tensor = file.find(name);
    if (tensor == nullptr) {
      throw FormatError(tensor_field(name), "missing", "present, as the index says");
    }
    if (tensor->shape != shape) {
      throw FormatError(tensor_field(name) + ": shape", shape_text(tensor->shape),
                        shape_text(shape));
    }
    const auto* const type = std::find_if(
        kTypes.begin(), kTypes.end(), [&](const TypeName& t) { return t.name == tensor->dtype; });
    if (type == kTypes.end()) refuse_type(name, tensor->dtype, "BF16, F16, F32 or F8_E4M3");
    const std::byte* const data = file.data(*tensor).data();
    if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(size_of(type->type))) {
      throw FormatError(tensor_field(name), "begins at an odd place in the file",
                        "a multiple of its element's size");
    }
    used_.insert(name);
    return {data, type->type, type->name};
  }

  void add_scales(const std::string& name, MatrixView& view) {
    view.scale_cols = ceil_div(view.cols, kScaleBlock);
    const Found scales =
        get(name + kScaleSuffix, {ceil_div(view.rows, kScaleBlock), view.scale_cols});
    if (scales.type != WeightType::kFp32) refuse_type(name + kScaleSuffix, scales.dtype, "F32");
    view.scales = reinterpret_cast<const float*>(scales.data);
  }

  void check_finite(const std::string& name, const void* data, WeightType type, Range rows,
                    std::int64_t cols) const {
    std::atomic<std::int64_t> bad = rows.end;
#pragma omp parallel for
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      if (!all_finite(data, type, row * cols, cols)) bad = row;
    }
    if (bad < rows.end) {
      throw FormatError(tensor_field(name), "a NaN or an infinity in row " + std::to_string(bad),
                        "numbers");
    }
  }

  std::filesystem::path folder_;
  std::map<std::string, std::string> shard_of_;  // of each tensor
  std::map<std::string, SafetensorsFile> shards_;
  std::set<std::string> used_;
  std::map<const void*, std::string> tensors_;  // by where they begin
};

}  // namespace

ModelWeights load_weights(const ModelConfig& config, const std::filesystem::path& folder) {
  auto storage = std::make_shared<Checkpoint>(folder);
  ModelWeights weights = collect_weights(config, *storage);
  storage->refuse_others(config);
  weights.storage = std::move(storage);
  return weights;
}

}  // namespace mla::proto
