#include "proto/file_io.h"

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/huge_pages.h"
#include "core/range.h"
#include "proto/file_calls.h"

namespace mla::proto {
namespace {

constexpr std::size_t kWriteBufferBytes = 1 << 20;

std::string reason(int os_error) {
  return std::error_code(os_error, std::generic_category()).message();
}

[[noreturn]] void throw_unreadable(const std::filesystem::path& path, const std::string& why) {
  throw FormatError("file '" + path.string() + "'", why, "a file that can be read");
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.release();
  }
  return *this;
}

int FileDescriptor::release() {
  return std::exchange(fd_, -1);
}

void FileDescriptor::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = file_calls::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw IoError("write", path.string(), errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void read_all(int fd, std::int64_t offset, std::span<std::byte> to,
              const std::filesystem::path& path) {
  while (!to.empty()) {
    const ssize_t count = file_calls::pread(fd, to.data(), to.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw IoError("read", path.string(), count < 0 ? errno : ENODATA);
    to = to.subspan(static_cast<std::size_t>(count));
    offset += count;
  }
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return folder.empty() ? "." : folder;
}

void sync_folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = folder_of(path);
  const FileDescriptor fd(file_calls::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) throw IoError("open folder", folder.string(), errno);
  // Some file systems cannot sync folders and say EINVAL; there is nothing more to do then.
  if (file_calls::fsync(fd.get()) != 0 && errno != EINVAL) {
    throw IoError("sync folder", folder.string(), errno);
  }
}

void remove_file(const std::filesystem::path& path) {
  if (file_calls::unlink(path.c_str()) != 0 && errno != ENOENT) {
    throw IoError("remove", path.string(), errno);
  }
}

void check_output_path(const std::filesystem::path& path) {
  struct stat status {};
  const std::filesystem::path folder = folder_of(path);
  if (::stat(folder.c_str(), &status) != 0) throw IoError("write into", folder.string(), errno);
  if (!S_ISDIR(status.st_mode)) throw IoError("write into", folder.string(), ENOTDIR);
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw IoError("write into", folder.string(), errno);
  }
  if (path.filename().empty() || (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))) {
    throw IoError("write", path.string(), EISDIR);
  }
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    throw IoError("replace what is no regular file at", path.string(), 0);
  }
}

MappedFile::MappedFile(const std::filesystem::path& path, std::size_t max_bytes)
    : path_(path), file_(file_calls::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (file_.get() < 0) throw_unreadable(path, reason(errno));
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) throw_unreadable(path, reason(errno));
  if (S_ISDIR(status.st_mode)) throw_unreadable(path, reason(EISDIR));
  if (!S_ISREG(status.st_mode)) throw_unreadable(path, "not a regular file");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ > max_bytes) {
    throw FormatError("file '" + path.string() + "'", std::to_string(size_) + " bytes",
                      "at most " + std::to_string(max_bytes));
  }
  if (size_ == 0) return;
  void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_.get(), 0);
  if (address == MAP_FAILED) throw_unreadable(path, reason(errno));
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::move(other.file_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

void MappedFile::read(std::span<const std::byte> part, std::byte* to) const {
  read_all(file_.get(), part.data() - data_, std::span(to, part.size()), path_);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedMemory::MappedMemory(std::int64_t bytes, std::string_view what) {
  if (bytes == 0) return;
  const bool is_large = bytes >= kHugePageBytes;
  // One huge page more than is needed, so that whole ones remain wherever the mapping begins.
  const std::int64_t mapped = is_large ? round_up(bytes, kHugePageBytes) + kHugePageBytes : bytes;
  void* const address = ::mmap(nullptr, static_cast<std::size_t>(mapped), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    throw Error(ExitCode::kIo, "cannot allocate " + std::to_string(bytes) + " bytes for " +
                                   std::string(what) + ": " + reason(errno));
  }
  data_ = address;
  size_ = mapped;
  if (is_large) keep_huge_pages();
}

void MappedMemory::keep_huge_pages() {
  auto* const begin = static_cast<std::byte*>(data_);
  const auto address = reinterpret_cast<std::intptr_t>(begin);
  const std::int64_t head = round_up(std::int64_t{address}, kHugePageBytes) - address;
  const std::int64_t tail = (address + size_) % kHugePageBytes;
  if (head > 0) ::munmap(begin, static_cast<std::size_t>(head));
  if (tail > 0) ::munmap(begin + size_ - tail, static_cast<std::size_t>(tail));
  data_ = begin + head;
  size_ -= head + tail;
  advise_huge_pages(data_, size_);
}

MappedMemory::MappedMemory(MappedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedMemory& MappedMemory::operator=(MappedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) ::munmap(data_, static_cast<std::size_t>(size_));
}

AtomicFile::AtomicFile(const std::filesystem::path& path)
    : path_(path), temporary_(path.string() + ".tmp" + std::to_string(::getpid())) {
  check_output_path(path);
  file_ = FileDescriptor(
      file_calls::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file_.get() < 0) throw IoError("create", path_.string(), errno);
}

AtomicFile::~AtomicFile() {
  if (file_.get() >= 0) file_calls::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kWriteBufferBytes) flush();
  if (bytes.size() > kWriteBufferBytes) {
    write_all(file_.get(), bytes, temporary_);
  } else {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::flush() {
  write_all(file_.get(), buffer_, temporary_);
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (file_calls::fsync(file_.get()) != 0) throw IoError("sync", temporary_.string(), errno);
  if (file_calls::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw IoError("rename to", path_.string(), errno);
  }
  file_.close();
  sync_folder_of(path_);
}

}  // namespace mla::proto
