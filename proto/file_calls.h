#pragma once

#include <cstddef>
#include <functional>

#include <sys/types.h>

/// The system calls by which files are opened, read, written, made durable, renamed and removed.
/// They do what the system's do, unless a test makes them fail.
namespace mla::proto::file_calls {

int open(const char* path, int flags, mode_t mode = 0);
ssize_t pread(int fd, void* bytes, std::size_t count, off_t offset);
ssize_t write(int fd, const void* bytes, std::size_t count);
int ftruncate(int fd, off_t size);
int fdatasync(int fd);
int fsync(int fd);
int rename(const char* from, const char* to);
int unlink(const char* path);

/// Asked before each call. An errno that it returns makes the call fail; with 0 it happens, and
/// reads or writes `bytes`, which may have been lowered.
using Fault = std::function<int(const char* call, std::size_t& bytes)>;

/// Puts `fault` before all calls as long as it lives. For tests, while no other thread uses files.
class InjectedFault {
 public:
  explicit InjectedFault(Fault fault);
  InjectedFault(const InjectedFault&) = delete;
  InjectedFault& operator=(const InjectedFault&) = delete;
  ~InjectedFault();
};

}  // namespace mla::proto::file_calls
