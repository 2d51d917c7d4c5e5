#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/range.h"

namespace mla {

/// Element types of weights.
enum class WeightType : std::uint8_t { kBf16, kFp16, kFp32, kFp8E4m3 };

constexpr std::int64_t size_of(WeightType type) {
  return type == WeightType::kFp32 ? 4 : type == WeightType::kFp8E4m3 ? 1 : 2;
}

/// Rows and columns that share a scale of an fp8 matrix.
inline constexpr std::int64_t kScaleBlock = 128;

/// A weight matrix in row-major order, without gaps, that belongs to someone else: y = W x has
/// `rows` outputs. Parts of it are given as ranges of rows beside it, so that blocks of scales are
/// counted from row 0 of the whole.
struct MatrixView {
  const void* data = nullptr;  ///< aligned to an element
  WeightType type = WeightType::kFp32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  /// fp8 only: element [r, c] is data[r, c] * scales[r / 128 * scale_cols + c / 128]; blocks at the
  /// end may be ragged.
  const float* scales = nullptr;
  std::int64_t scale_cols = 0;  ///< ceil(cols / 128)

  bool empty() const { return rows == 0; }
  std::int64_t row_bytes() const { return cols * size_of(type); }
};

struct MlpWeights {
  MatrixView gate;  ///< [intermediate, hidden]
  MatrixView up;    ///< [intermediate, hidden]
  MatrixView down;  ///< [hidden, intermediate]
};

/// H heads; norms and biases are fp32 copies, empty where there are none.
struct AttentionWeights {
  MatrixView q;                  ///< [H (qk_nope + qk_rope), hidden] if there is no q_lora_rank
  MatrixView q_a;                ///< [q_lora_rank, hidden]
  std::vector<float> q_a_bias;   ///< [q_lora_rank]
  std::vector<float> q_a_norm;   ///< [q_lora_rank]
  MatrixView q_b;                ///< [H (qk_nope + qk_rope), q_lora_rank]
  MatrixView kv_a;               ///< [kv_lora_rank + qk_rope, hidden]
  std::vector<float> kv_a_bias;  ///< [kv_lora_rank + qk_rope]
  std::vector<float> kv_a_norm;  ///< [kv_lora_rank]
  MatrixView kv_b;               ///< [H (qk_nope + v_head_dim), kv_lora_rank]; K, then V of a head
  MatrixView o;                  ///< [hidden, H v_head_dim]
  std::vector<float> o_bias;     ///< [hidden]
};

struct MoeWeights {
  MatrixView router;                  ///< [experts + identity experts, hidden]
  std::vector<float> selection_bias;  ///< [experts + identity experts]
  std::vector<MlpWeights> experts;    ///< [experts]
  MlpWeights shared;                  ///< of all shared experts together
};

struct LayerWeights {
  std::vector<float> attention_norm;  ///< [hidden]
  AttentionWeights attention;
  std::vector<float> mlp_norm;  ///< [hidden], before MLP and experts
  MlpWeights mlp;               ///< empty where `has_dense_mlp` is false
  MoeWeights moe;               ///< empty where `has_experts` is false
};

/// What the views of a `ModelWeights` point into: mapped files, or memory for made-up numbers.
class WeightStorage {
 public:
  virtual ~WeightStorage() = default;

  /// Makes rows of a matrix ready to be used, and checks them. To be called once by each process
  /// for the rows that it uses, and for no others: memory is taken up by these alone. Thread-safe
  /// for disjoint rows. Before it the contents may be anything.
  /// @throws FormatError naming the tensor if there is a NaN or an infinity among them; IoError.
  virtual void prepare(const MatrixView& matrix, Range rows) const = 0;
};

struct ModelWeights {
  MatrixView embedding;              ///< [vocab, hidden]
  std::vector<LayerWeights> layers;  ///< [num_layers]
  std::vector<float> norm;           ///< [hidden]
  MatrixView head;                   ///< [vocab, hidden]; the embedding itself if tied
  std::shared_ptr<const WeightStorage> storage;
};

}  // namespace mla
