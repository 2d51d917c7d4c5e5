#include "proto/file_calls.h"

#include <cerrno>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace mla::proto::file_calls {
namespace {

Fault& injected() {
  static Fault fault;
  return fault;
}

bool fails(const char* call, std::size_t& bytes) {
  const int os_error = injected() ? injected()(call, bytes) : 0;
  if (os_error != 0) errno = os_error;
  return os_error != 0;
}

bool fails(const char* call) {
  std::size_t none = 0;
  return fails(call, none);
}

}  // namespace

int open(const char* path, int flags, mode_t mode) {
  return fails("open") ? -1 : ::open(path, flags, mode);
}

ssize_t pread(int fd, void* bytes, std::size_t count, off_t offset) {
  return fails("pread", count) ? -1 : ::pread(fd, bytes, count, offset);
}

ssize_t write(int fd, const void* bytes, std::size_t count) {
  return fails("write", count) ? -1 : ::write(fd, bytes, count);
}

int ftruncate(int fd, off_t size) {
  return fails("ftruncate") ? -1 : ::ftruncate(fd, size);
}

int fdatasync(int fd) {
  return fails("fdatasync") ? -1 : ::fdatasync(fd);
}

int fsync(int fd) {
  return fails("fsync") ? -1 : ::fsync(fd);
}

int rename(const char* from, const char* to) {
  return fails("rename") ? -1 : ::rename(from, to);
}

int unlink(const char* path) {
  return fails("unlink") ? -1 : ::unlink(path);
}

InjectedFault::InjectedFault(Fault fault) {
  injected() = std::move(fault);
}

InjectedFault::~InjectedFault() {
  injected() = nullptr;
}

}  // namespace mla::proto::file_calls
