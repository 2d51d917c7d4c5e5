#include "kernels/cuda/runtime.h"

#include <utility>

#include <cuda_runtime_api.h>

#include "core/error.h"

namespace mla::kernels::cuda {
namespace {

std::string text_of(cudaError_t code) {
  return std::string(cudaGetErrorName(code)) + ", " + cudaGetErrorString(code);
}

void check(cudaError_t code, std::string_view call) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // an error that is reported is not found again by a later call
  throw CudaError(call, text_of(code));
}

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

[[noreturn]] void throw_out_of_memory(std::int64_t bytes, std::string_view what) {
  std::size_t free_bytes = 0;
  std::size_t all_bytes = 0;
  cudaMemGetInfo(&free_bytes, &all_bytes);
  throw CudaError("cudaMalloc", std::to_string(bytes) + " bytes for " + std::string(what) +
                                    " are wanted, " + std::to_string(free_bytes) + " of " +
                                    std::to_string(all_bytes) + " are free on the GPU");
}

}  // namespace

void check_cuda(ErrorCode code, std::string_view call) {
  check(static_cast<cudaError_t>(code), call);
}

int count_devices(std::string* why_none) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  if (why_none == nullptr) return 0;
  if (code == cudaSuccess || code == cudaErrorNoDevice) {
    *why_none = "no NVIDIA GPU is visible (cudaErrorNoDevice)";
  } else {
    *why_none = "no NVIDIA GPU can be used (" + text_of(code) + ")";
  }
  return 0;
}

void use_device(int ordinal) {
  check(cudaSetDevice(ordinal), "cudaSetDevice");
}

int compute_capability(int ordinal) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, ordinal) +
         attribute(cudaDevAttrComputeCapabilityMinor, ordinal);
}

DeviceInfo this_device() {
  const int device = current_device();
  return {.compute_capability = compute_capability(device),
          .multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device),
          .shared_bytes_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)};
}

std::string device_name(int ordinal) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
  return properties.name;
}

std::string device_bus_id(int ordinal) {
  char id[32] = {};
  check(cudaDeviceGetPCIBusId(id, sizeof id, ordinal), "cudaDeviceGetPCIBusId");
  return id;
}

DeviceBuffer::DeviceBuffer(std::int64_t bytes, std::string_view what) : bytes_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw_out_of_memory(bytes, what);
  }
  check(code, "cudaMalloc");
  data_ = static_cast<std::byte*>(data);
}

DeviceBuffer::~DeviceBuffer() {
  cudaFree(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedBuffer::PinnedBuffer(std::int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  check(cudaMallocHost(&data, static_cast<std::size_t>(bytes)), "cudaMallocHost");
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer::~PinnedBuffer() {
  cudaFreeHost(data_);
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void reserve(DeviceBuffer& buffer, std::int64_t bytes, std::string_view what) {
  if (buffer.bytes() >= bytes) return;
  const std::int64_t spare = buffer.bytes() / 4;
  buffer = {};
  buffer = DeviceBuffer(bytes + spare, what);
}

void reserve(PinnedBuffer& buffer, std::int64_t bytes) {
  if (buffer.bytes() >= bytes) return;
  const std::int64_t spare = buffer.bytes() / 4;
  buffer = {};
  buffer = PinnedBuffer(bytes + spare);
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

Stream::~Stream() {
  cudaStreamDestroy(stream_);
}

void Stream::synchronise() const {
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

void Stream::upload(void* to, const void* from, std::int64_t bytes) const {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync");
}

void Stream::download(void* to, const void* from, std::int64_t bytes) const {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
        "cudaMemcpyAsync");
}

void Stream::fill(void* to, std::byte value, std::int64_t bytes) const {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, static_cast<int>(value), static_cast<std::size_t>(bytes), stream_),
        "cudaMemsetAsync");
}

Event::Event() {
  check(cudaEventCreate(&event_), "cudaEventCreate");
}

Event::~Event() {
  cudaEventDestroy(event_);
}

void Event::record(const Stream& stream) {
  check(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}

void Event::synchronise() const {
  check(cudaEventSynchronize(event_), "cudaEventSynchronize");
}

bool Event::has_happened() const {
  const cudaError_t code = cudaEventQuery(event_);
  if (code == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(code, "cudaEventQuery");
  return true;
}

double Event::seconds_since(const Event& begin) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "cudaEventElapsedTime");
  return static_cast<double>(milliseconds) * 1e-3;
}

Graph::Graph(const Stream& stream, const std::function<void()>& enqueue) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream.get(), &graph);
    cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
  const cudaError_t code = cudaGraphInstantiate(&graph_, graph, 0);
  cudaGraphDestroy(graph);
  check(code, "cudaGraphInstantiate");
}

Graph::~Graph() {
  cudaGraphExecDestroy(graph_);
}

void Graph::launch(const Stream& stream) const {
  check(cudaGraphLaunch(graph_, stream.get()), "cudaGraphLaunch");
}

}  // namespace mla::kernels::cuda
