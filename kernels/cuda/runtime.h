#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/device_kernel.h"

struct CUevent_st;
struct CUgraphExec_st;

/// What a program holds on a GPU, freed when it goes out of scope. All of it belongs to the device
/// that was current when it was made (`use_device`). Calls that fail throw CudaError.
namespace mla::kernels::cuda {

/// Throws CudaError unless `code`, a cudaError_t, is cudaSuccess.
void check_cuda(ErrorCode code, std::string_view call);

/// How many GPUs this process can use; where there is none, `why_none` (if given) gets the reason
/// as a clause. Never throws.
int count_devices(std::string* why_none = nullptr);

/// Of device `ordinal`, ten times the number: 90 for Hopper.
int compute_capability(int ordinal);

/// "NVIDIA H200", and its place on the PCI bus.
std::string device_name(int ordinal);
std::string device_bus_id(int ordinal);

/// Makes device `ordinal` the calling thread's.
void use_device(int ordinal);

/// Of the current device.
DeviceInfo this_device();

/// Device memory. Its contents are undefined.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// `what` is named when memory is short: "cache pages".
  /// @throws CudaError with the bytes wanted and free.
  DeviceBuffer(std::int64_t bytes, std::string_view what);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Host memory that the GPU copies from and to by itself. Kernels may use it by the same address.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::int64_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  std::span<std::byte> span() const { return {data_, static_cast<std::size_t>(bytes_)}; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Gives a buffer that has fewer bytes new memory, with room to grow if it had any. What it held is
/// lost then.
void reserve(DeviceBuffer& buffer, std::int64_t bytes, std::string_view what);
void reserve(PinnedBuffer& buffer, std::int64_t bytes);

/// A queue of work on the GPU.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  StreamHandle get() const { return stream_; }
  /// Waits until all work is done. Errors of that work come to light here.
  void synchronise() const;

  void upload(void* to, const void* from, std::int64_t bytes) const;
  void download(void* to, const void* from, std::int64_t bytes) const;
  void fill(void* to, std::byte value, std::int64_t bytes) const;

 private:
  StreamHandle stream_ = nullptr;
};

/// A place in a stream, with the time at which the GPU came there.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream);
  void synchronise() const;
  bool has_happened() const;
  /// From `begin` to this event; both have happened.
  double seconds_since(const Event& begin) const;

 private:
  CUevent_st* event_ = nullptr;
};

/// Work that was enqueued once and can be run again and again.
class Graph {
 public:
  /// What `enqueue` puts on `stream`, which runs nothing of it.
  Graph(const Stream& stream, const std::function<void()>& enqueue);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(const Stream& stream) const;

 private:
  CUgraphExec_st* graph_ = nullptr;
};

}  // namespace mla::kernels::cuda
