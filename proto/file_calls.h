#pragma once

#include <cstddef>

#include <sys/types.h>

namespace mla::proto {

/// The system calls by which files are opened, read, written, made durable, renamed and removed.
/// They do what the system's do; tests put others in their place, which fail.
class FileCalls {
 public:
  FileCalls() = default;
  FileCalls(const FileCalls&) = delete;
  FileCalls& operator=(const FileCalls&) = delete;
  virtual ~FileCalls() = default;

  virtual int open(const char* path, int flags, mode_t mode);
  virtual ssize_t pread(int fd, void* bytes, std::size_t count, off_t offset);
  virtual ssize_t write(int fd, const void* bytes, std::size_t count);
  virtual int ftruncate(int fd, off_t size);
  virtual int fdatasync(int fd);
  virtual int fsync(int fd);
  virtual int rename(const char* from, const char* to);
  virtual int unlink(const char* path);
};

/// What all files of this folder go through.
FileCalls& file_calls();

/// Puts `calls` in the system's place as long as it lives. For tests, while no other thread uses
/// files.
class ReplacedFileCalls {
 public:
  explicit ReplacedFileCalls(FileCalls& calls);
  ReplacedFileCalls(const ReplacedFileCalls&) = delete;
  ReplacedFileCalls& operator=(const ReplacedFileCalls&) = delete;
  ~ReplacedFileCalls();

 private:
  FileCalls* usual_;
};

}  // namespace mla::proto
