#include "proto/batch_codec.h"

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/utf8.h"
#include "proto/batch.pb.h"

namespace mla::proto {
namespace {

std::int64_t or_default(std::int64_t value, std::int64_t absent) {
  return value == 0 ? absent : value;
}

template <class Element>
void append_element(std::vector<std::byte>& bytes, Element element) {
  const auto* begin = reinterpret_cast<const std::byte*>(&element);
  bytes.insert(bytes.end(), begin, begin + sizeof element);
}

std::vector<std::byte> to_bytes(const google::protobuf::RepeatedField<float>& values, DType dtype) {
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<std::size_t>(values.size() * size_of(dtype)));
  for (const float value : values) {
    switch (dtype) {
      case DType::kBf16:
        append_element(bytes, to_bf16(value).bits);
        break;
      case DType::kFp16:
        append_element(bytes, to_fp16(value).bits);
        break;
      case DType::kFp32:
        append_element(bytes, value);
        break;
    }
  }
  return bytes;
}

void check_utf8(const std::string& text, const std::string& field) {
  if (find_invalid_utf8(text)) throw FormatError(field, "bytes that are no text", "UTF-8");
}

void encode_source(const TensorSource& source, const std::string& field, meshmla::Source& message) {
  switch (source.kind) {
    case TensorSource::Kind::kNone:
      break;
    case TensorSource::Kind::kSafetensors:
      check_utf8(source.file, field + ".safetensors.file");
      check_utf8(source.tensor, field + ".safetensors.tensor");
      message.mutable_safetensors()->set_file(source.file);
      message.mutable_safetensors()->set_tensor(source.tensor);
      break;
    case TensorSource::Kind::kInline:
      message.mutable_inline_()->set_data(source.bytes.data(), source.bytes.size());
      break;
    case TensorSource::Kind::kGenerated:
      message.mutable_generated()->set_seed(source.seed);
      break;
  }
}

TensorSource decode_source(const meshmla::Source& message, DType dtype, const std::string& field) {
  TensorSource source;
  switch (message.source_case()) {
    case meshmla::Source::SOURCE_NOT_SET:
      break;
    case meshmla::Source::kSafetensors:
      source.kind = TensorSource::Kind::kSafetensors;
      source.file = message.safetensors().file();
      source.tensor = message.safetensors().tensor();
      check_utf8(source.file, field + ".safetensors.file");
      check_utf8(source.tensor, field + ".safetensors.tensor");
      break;
    case meshmla::Source::kInline: {
      const std::string& data = message.inline_().data();
      if (!data.empty() && message.inline_().values_size() > 0) {
        throw FormatError(field + ".inline", "both data and values", "one of them");
      }
      source.kind = TensorSource::Kind::kInline;
      source.bytes = to_bytes(message.inline_().values(), dtype);
      if (!data.empty()) {
        source.bytes.resize(data.size());
        std::memcpy(source.bytes.data(), data.data(), data.size());
      }
      break;
    }
    case meshmla::Source::kGenerated:
      source.kind = TensorSource::Kind::kGenerated;
      source.seed = message.generated().seed();
      break;
  }
  return source;
}

}  // namespace

void check_version(std::uint32_t version, std::string_view name) {
  if (version != 0 && version != kFormatVersion) {
    throw FormatError(std::string(name) + ": header.version", std::to_string(version),
                      std::to_string(kFormatVersion) + ", the only one this build reads");
  }
}

void check_request_count(std::uint64_t count, std::string_view name) {
  if (count > static_cast<std::uint64_t>(kMaxRequests)) {
    throw FormatError(std::string(name) + ": requests", std::to_string(count),
                      "at most " + std::to_string(kMaxRequests));
  }
}

meshmla::DType encode_dtype(DType dtype) {
  switch (dtype) {
    case DType::kBf16:
      return meshmla::BF16;
    case DType::kFp16:
      return meshmla::FP16;
    case DType::kFp32:
      return meshmla::FP32;
  }
  return meshmla::DTYPE_UNSPECIFIED;
}

DType decode_dtype(int number, DType absent, const std::string& field) {
  switch (number) {
    case meshmla::DTYPE_UNSPECIFIED:
      return absent;
    case meshmla::BF16:
      return DType::kBf16;
    case meshmla::FP16:
      return DType::kFp16;
    case meshmla::FP32:
      return DType::kFp32;
    default:
      throw FormatError(field, std::to_string(number), "BF16, FP16 or FP32");
  }
}

void encode_shape(const MlaShape& shape, meshmla::Shape& message) {
  message.set_h_q(shape.h_q);
  message.set_h_kv(shape.h_kv);
  message.set_d_qk(shape.d_qk);
  message.set_d_v(shape.d_v);
}

MlaShape decode_shape(const meshmla::Shape& message) {
  return {.h_q = message.h_q(),
          .h_kv = or_default(message.h_kv(), 1),
          .d_qk = message.d_qk(),
          .d_v = message.d_v()};
}

void encode_header(const Batch& batch, meshmla::Header& message) {
  message.set_version(kFormatVersion);
  encode_shape(batch.shape, *message.mutable_shape());
  message.set_dtype(encode_dtype(batch.dtype));
  message.set_out_dtype(encode_dtype(batch.out_dtype));
  message.set_page_block_size(batch.page_block_size);
  message.set_num_pages(batch.num_pages);
  message.set_chunk_tokens(batch.chunk_tokens);
  message.set_causal(batch.causal);
  message.set_softmax_scale(batch.softmax_scale);
  if (batch.kv_cache.kind != TensorSource::Kind::kNone) {
    encode_source(batch.kv_cache, "kv_cache", *message.mutable_kv_cache());
  }
}

Batch decode_header(const meshmla::Header& message, std::string_view name) {
  const std::string prefix = std::string(name) + ": header.";
  check_version(message.version(), name);
  Batch batch;
  batch.shape = decode_shape(message.shape());
  batch.dtype = decode_dtype(message.dtype(), DType::kBf16, prefix + "dtype");
  batch.out_dtype = decode_dtype(message.out_dtype(), batch.dtype, prefix + "out_dtype");
  batch.page_block_size = or_default(message.page_block_size(), batch.page_block_size);
  batch.num_pages = message.num_pages();
  batch.chunk_tokens = or_default(message.chunk_tokens(), kDefaultChunkTokens);
  batch.causal = !message.has_causal() || message.causal();
  batch.softmax_scale = message.softmax_scale();
  if (!message.has_softmax_scale() && batch.shape.d_qk > 0) {
    batch.softmax_scale = 1 / std::sqrt(static_cast<double>(batch.shape.d_qk));
  }
  batch.kv_cache = decode_source(message.kv_cache(), batch.dtype, prefix + "kv_cache");
  return batch;
}

void encode_request(const Request& request, meshmla::Request& message) {
  check_utf8(request.custom_id, "custom_id");
  message.set_custom_id(request.custom_id);
  message.set_query_len(request.query_len);
  message.set_context_len(request.context_len);
  message.mutable_block_table()->Add(request.block_table.begin(), request.block_table.end());
  if (request.q.kind != TensorSource::Kind::kNone) {
    encode_source(request.q, "request '" + request.custom_id + "': q", *message.mutable_q());
  }
}

Request decode_request(const meshmla::Request& message, const Batch& batch, std::int64_t position,
                       std::string_view name) {
  const std::string field = std::string(name) + ": requests[" + std::to_string(position) + "]";
  check_utf8(message.custom_id(), field + ".custom_id");
  Request request;
  request.custom_id =
      message.custom_id().empty() ? "request-" + std::to_string(position) : message.custom_id();
  request.query_len = or_default(message.query_len(), 1);
  request.context_len = message.context_len();
  request.block_table.assign(message.block_table().begin(), message.block_table().end());
  request.q = decode_source(message.q(), batch.dtype, field + ".q");
  return request;
}

}  // namespace mla::proto
