#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace mla::proto {

/// A file descriptor that closes itself.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor() { close(); }

  int get() const { return fd_; }
  int release();
  void close();

 private:
  int fd_ = -1;
};

/// Writes all of `bytes`. @throws IoError naming `path`.
void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path);

/// Reads all of `to` from byte `offset` on. @throws IoError naming `path`, also at the file's end.
void read_all(int fd, std::int64_t offset, std::span<std::byte> to,
              const std::filesystem::path& path);

/// Removes the file if there is one. @throws IoError.
void remove_file(const std::filesystem::path& path);

/// The folder that holds `path`.
std::filesystem::path folder_of(const std::filesystem::path& path);

/// Makes the entries of the folder that holds `path` durable. @throws IoError.
void sync_folder_of(const std::filesystem::path& path);

/// Checks early that a file can be written at `path`: its folder exists and is writable, and `path`
/// is not a folder itself. @throws IoError.
void check_output_path(const std::filesystem::path& path);

/// An input file mapped read-only; pages become resident when they are touched.
class MappedFile {
 public:
  /// @throws FormatError with the system's reason if it cannot be opened or mapped, or if it has
  ///         more than `max_bytes`.
  explicit MappedFile(const std::filesystem::path& path,
                      std::size_t max_bytes = std::numeric_limits<std::size_t>::max());
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Copies `part`, a part of `bytes()`, out of the file itself, so that no mapped page becomes
  /// resident. Thread-safe. @throws IoError.
  void read(std::span<const std::byte> part, std::byte* to) const;

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Zeroed memory, given back to the system with the object. Untouched pages cost nothing. From
/// 2 MiB on it is aligned to huge pages and lies on them if the system grants it.
class MappedMemory {
 public:
  MappedMemory() = default;
  /// `what` says in an error what the memory was for. @throws Error if there is not enough.
  MappedMemory(std::int64_t bytes, std::string_view what);
  MappedMemory(MappedMemory&& other) noexcept;
  MappedMemory& operator=(MappedMemory&& other) noexcept;
  ~MappedMemory();

  void* data() const { return data_; }

 private:
  void keep_huge_pages();

  void* data_ = nullptr;
  std::int64_t size_ = 0;  // of what is mapped
};

/// A file that appears whole or not at all: written under a temporary name in the same folder,
/// synced and renamed by `commit`, removed if never committed.
class AtomicFile {
 public:
  /// @throws IoError.
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// Appends. Buffered: small writes are cheap. @throws IoError.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);

  /// @throws IoError; then nothing has changed at the path, unless it is the folder's sync that
  /// failed.
  void commit();

 private:
  void flush();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileDescriptor file_;
  std::vector<std::byte> buffer_;
};

}  // namespace mla::proto
