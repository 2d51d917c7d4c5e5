#include "core/error.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace mla {
namespace {

std::string sentence(std::string_view field, std::string_view value, std::string_view expected) {
  return std::string(field) + ": " + std::string(value) + "; expected " + std::string(expected);
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

}  // namespace

Error::Error(ExitCode exit_code, std::string line)
    : std::runtime_error(one_line(std::move(line))), exit_code_(exit_code) {}

InvalidArgument::InvalidArgument(std::string_view field, std::string_view value,
                                 std::string_view expected)
    : Error(ExitCode::kUsage, sentence(field, value, expected)) {}

FormatError::FormatError(std::string_view field, std::string_view value, std::string_view expected)
    : Error(ExitCode::kBadInput, sentence(field, value, expected)) {}

Unsupported::Unsupported(std::string_view field, std::string_view value, std::string_view expected)
    : Error(ExitCode::kUsage, sentence(field, value, expected)) {}

NotCompiled::NotCompiled(std::string_view part, std::string_view how_to_get_it)
    : Error(ExitCode::kUsage, sentence(part, "not in this build", how_to_get_it)) {}

MpiError::MpiError(std::string_view call, std::string_view reason)
    : Error(ExitCode::kPeerLost, std::string(call) + ": " + std::string(reason)) {}

CudaError::CudaError(std::string_view call, std::string_view reason)
    : Error(ExitCode::kIo, std::string(call) + ": " + std::string(reason)) {}

IoError::IoError(std::string_view action, std::string_view path, int os_error)
    : Error(ExitCode::kIo,
            "cannot " + std::string(action) + " '" + std::string(path) + "'" +
                (os_error != 0 ? ": " + std::error_code(os_error, std::generic_category()).message()
                               : std::string())) {}

}  // namespace mla
