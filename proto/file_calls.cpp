#include "proto/file_calls.h"

#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace mla::proto {
namespace {

FileCalls& system_calls() {
  static FileCalls calls;
  return calls;
}

FileCalls*& current_calls() {
  static FileCalls* calls = &system_calls();
  return calls;
}

}  // namespace

int FileCalls::open(const char* path, int flags, mode_t mode) {
  return ::open(path, flags, mode);
}

ssize_t FileCalls::pread(int fd, void* bytes, std::size_t count, off_t offset) {
  return ::pread(fd, bytes, count, offset);
}

ssize_t FileCalls::write(int fd, const void* bytes, std::size_t count) {
  return ::write(fd, bytes, count);
}

int FileCalls::ftruncate(int fd, off_t size) {
  return ::ftruncate(fd, size);
}

int FileCalls::fdatasync(int fd) {
  return ::fdatasync(fd);
}

int FileCalls::fsync(int fd) {
  return ::fsync(fd);
}

int FileCalls::rename(const char* from, const char* to) {
  return ::rename(from, to);
}

int FileCalls::unlink(const char* path) {
  return ::unlink(path);
}

FileCalls& file_calls() {
  return *current_calls();
}

ReplacedFileCalls::ReplacedFileCalls(FileCalls& calls)
    : usual_(std::exchange(current_calls(), &calls)) {}

ReplacedFileCalls::~ReplacedFileCalls() {
  current_calls() = usual_;
}

}  // namespace mla::proto
