#include "proto/dummy_weights.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/generator.h"
#include "core/huge_pages.h"
#include "proto/file_io.h"
#include "proto/hash.h"
#include "proto/weight_names.h"

namespace mla::proto {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{1} << 30;
constexpr std::int64_t kAlignment = 64;
constexpr double kFp8MeanSquare = 0.713;  // of what `generate_weights` makes

class DummyWeights final : public WeightStorage, public WeightSource {
 public:
  DummyWeights(std::uint64_t seed, WeightType type) : seed_(seed), type_(type) {}

  MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) override {
    const bool stays_wide =
        name.find("proj.") == std::string::npos && name.find("proj_with_mqa.") == std::string::npos;
    MatrixView view{.rows = rows, .cols = cols};
    view.type = type_ == WeightType::kFp8E4m3 && stays_wide ? WeightType::kBf16 : type_;
    if (view.type == WeightType::kFp8E4m3) add_scales(view);
    view.data = reserve(rows * cols * size_of(view.type));
    tensors_[view.data] = {xxh3(name), bound_of(name, cols)};
    return view;
  }

  MatrixView stack(const std::string&, std::int64_t, std::int64_t, std::int64_t) override {
    return {};
  }

  std::vector<float> vector(const std::string& name, std::int64_t size) override {
    const bool norm = name.find("norm") != std::string::npos;
    return std::vector<float>(static_cast<std::size_t>(size), norm ? 1.0F : 0.0F);
  }

  void prepare(const MatrixView& matrix, Range rows) const override {
    const Tensor& tensor = tensors_.at(matrix.data);
    const std::int64_t row_bytes = matrix.row_bytes();
    // The memory is ours, and the view of it const only for others.
    auto* const data = static_cast<std::byte*>(const_cast<void*>(matrix.data));
    // A huge page for each thin slice of a matrix would be several times what the slices take.
    const std::int64_t used = rows.size() * row_bytes;
    if (rows.size() < matrix.rows && used < kHugePageBytes) {
      refuse_huge_pages(data, matrix.rows * row_bytes);
    }
#pragma omp parallel for
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      generate_weights(seed_, tensor.key, row * matrix.cols, matrix.cols, tensor.bound, matrix.type,
                       data + row * row_bytes);
    }
  }

 private:
  struct Tensor {
    std::uint64_t key;
    float bound;
  };

  /// Embeddings have a deviation of 1; products of numbers of deviation 1 keep it.
  static float bound_of(const std::string& name, std::int64_t cols) {
    const bool embedding = name.find("embed_tokens") != std::string::npos;
    return static_cast<float>(std::sqrt(3.0 / (embedding ? 1.0 : static_cast<double>(cols))));
  }

  /// All blocks of all matrices with as many columns have the same scale.
  void add_scales(MatrixView& view) {
    view.scale_cols = ceil_div(view.cols, kScaleBlock);
    const auto count = static_cast<std::size_t>(ceil_div(view.rows, kScaleBlock) * view.scale_cols);
    const double scale = 1 / std::sqrt(kFp8MeanSquare * static_cast<double>(view.cols));
    // One for each size, since a vector that grew would move.
    std::vector<float>& scales = scales_[{view.cols, count}];
    scales.assign(count, static_cast<float>(scale));
    view.scales = scales.data();
  }

  void* reserve(std::int64_t bytes) {
    bytes = round_up(bytes, kAlignment);
    if (bytes > left_) {
      left_ = std::max(bytes, kBlockBytes);
      blocks_.emplace_back(left_, "weights");
      next_ = static_cast<std::byte*>(blocks_.back().data());
    }
    void* const result = next_;
    next_ += bytes;
    left_ -= bytes;
    return result;
  }

  std::uint64_t seed_;
  WeightType type_;
  std::vector<MappedMemory> blocks_;
  std::byte* next_ = nullptr;
  std::int64_t left_ = 0;
  std::map<const void*, Tensor> tensors_;
  std::map<std::pair<std::int64_t, std::size_t>, std::vector<float>> scales_;
};

}  // namespace

ModelWeights make_dummy_weights(const ModelConfig& config, std::uint64_t seed, WeightType type) {
  auto storage = std::make_shared<DummyWeights>(seed, type);
  ModelWeights weights = collect_weights(config, *storage);
  weights.storage = std::move(storage);
  return weights;
}

}  // namespace mla::proto
