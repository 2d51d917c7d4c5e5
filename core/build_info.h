#pragma once

#include <string>
#include <string_view>

namespace mla {

/// "major.minor.patch" of this library.
std::string_view version();

/// Abbreviated git revision of the sources, "-dirty" appended when they differ from it; empty when
/// they were not built from a git checkout.
std::string_view git_revision();

/// Name and version of the compiler, as in "GNU 12.2.0".
std::string_view compiler();

/// "Release", "Debug" or another CMake build type.
std::string_view build_type();

/// The flags that the build type and the user gave to every source file.
std::string_view compile_flags();

/// All of it in one line, for --version and for manifests.
std::string build_summary();

}  // namespace mla
