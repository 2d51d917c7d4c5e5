#include "tests/launch/bad_input.h"

#include <stdexcept>

#include "proto/batch_file.h"

namespace mla::launch {
namespace {

constexpr const char* kGoodBatch = R"(
header {
  version: 1
  shape { h_q: 4 h_kv: 1 d_qk: 24 d_v: 16 }
  dtype: BF16
  out_dtype: FP32
  page_block_size: 16
  num_pages: 4
  chunk_tokens: 64
  softmax_scale: 0.2
  kv_cache { generated { seed: 1 } }
}
requests {
  custom_id: "a" query_len: 1 context_len: 40 block_table: [2, 0, 3]
  q { generated { seed: 2 } }
}
requests {
  custom_id: "b" query_len: 2 context_len: 16 block_table: [1]
  q { generated { seed: 3 } }
}
)";

}  // namespace

Inputs::Inputs() {
  write("batch.txtpb", kGoodBatch);
}

void Inputs::write(const std::string& name, const std::string& bytes) const {
  write_file(folder_ / name, bytes);
}

void Inputs::replace(const std::string& from, const std::string& to) const {
  std::string text = read_text(folder_ / "batch.txtpb");
  const auto at = text.find(from);
  if (at == std::string::npos || text.find(from, at + 1) != std::string::npos) {
    throw std::logic_error("not exactly once in the batch: " + from);
  }
  write("batch.txtpb", text.replace(at, from.size(), to));
}

std::string Inputs::binary() const {
  proto::write_batch(proto::read_batch(folder_ / "batch.txtpb"), folder_ / "batch.bin",
                     proto::BatchFormat::kBinary);
  return read_text(folder_ / "batch.bin");
}

void Inputs::sidecar(const std::string& header, std::size_t data_bytes) const {
  replace("kv_cache { generated { seed: 1 } }",
          "kv_cache { safetensors { file: 'kv.safetensors' tensor: 'kv' } }");
  std::string padded = header;  // as other writers do, so that data is aligned
  while (padded.size() % 8 != 0) padded += ' ';
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(padded.size() >> (8 * i) & 0xff);
  write("kv.safetensors", length + padded + std::string(data_bytes, '\0'));
}

std::string Inputs::without_folder(std::string text) const {
  const std::string path = folder_ / "";
  for (auto at = text.find(path); at != std::string::npos; at = text.find(path)) {
    text.replace(at, path.size(), "DIR/");
  }
  return text;
}

}  // namespace mla::launch
