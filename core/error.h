#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace mla {

/// Process exit codes of every meshmla command. Never above 125.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,
  kBadInput = 3,
  kSomeRequestsFailed = 4,
  kVerificationFailed = 5,
  kPeerLost = 6,
  kIo = 7,
  kStopped = 75,
};

/// Root of the error family. `what()` is one line that names the field, the value and what was
/// expected; `exit_code()` is what a command that dies of it returns.
class Error : public std::runtime_error {
 public:
  /// Control characters of `line` (of a file's name, say) become '?', so that it is one line.
  Error(ExitCode exit_code, std::string line);
  ExitCode exit_code() const { return exit_code_; }

 private:
  ExitCode exit_code_;
};

/// An option or argument of a call is wrong (the caller's mistake).
class InvalidArgument : public Error {
 public:
  InvalidArgument(std::string_view field, std::string_view value, std::string_view expected);
};

/// A file that was read says something impossible, or is missing.
class FormatError : public Error {
 public:
  FormatError(std::string_view field, std::string_view value, std::string_view expected);
};

/// The request is meaningful, but this build or machine cannot do it.
class Unsupported : public Error {
 public:
  Unsupported(std::string_view field, std::string_view value, std::string_view expected);
};

/// The part exists but was left out of this build.
class NotCompiled : public Error {
 public:
  NotCompiled(std::string_view part, std::string_view how_to_get_it);
};

/// A call into the MPI library failed, or a peer broke the protocol.
class MpiError : public Error {
 public:
  MpiError(std::string_view call, std::string_view reason);
};

/// A call into the CUDA runtime failed, or a GPU's memory is short. Like a disk, the device is
/// something that input and output go through: exit code kIo.
class CudaError : public Error {
 public:
  CudaError(std::string_view call, std::string_view reason);
};

/// The operating system refused a read or a write. `os_error` is an errno value, 0 for none.
class IoError : public Error {
 public:
  IoError(std::string_view action, std::string_view path, int os_error);
};

}  // namespace mla
