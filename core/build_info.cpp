#include "core/build_info.h"

#include "core/build_config.h"

namespace mla {

std::string_view version() {
  return MLA_VERSION;
}
std::string_view git_revision() {
  return MLA_GIT_REVISION;
}
std::string_view compiler() {
  return MLA_COMPILER;
}
std::string_view build_type() {
  return MLA_BUILD_TYPE;
}
std::string_view compile_flags() {
  return MLA_COMPILE_FLAGS;
}

std::string build_summary() {
  std::string line = std::string(version());
  if (!git_revision().empty()) line += " (" + std::string(git_revision()) + ")";
  line += ", " + std::string(compiler()) + ", " + std::string(build_type());
  if (!compile_flags().empty()) line += " [" + std::string(compile_flags()) + "]";
  return line;
}

}  // namespace mla
