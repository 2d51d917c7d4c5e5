#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <numeric>
#include <thread>

#include "dist/exchange.h"

namespace mla::dist {
namespace {

constexpr const char* kShmFolder = "/dev/shm";  // where Open MPI keeps windows

/// In front of each message of a window.
struct alignas(64) SlotHeader {
  std::atomic<std::uint32_t> full{0};  // 1 from post() of the sender to release() of the receiver
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

std::int64_t slot_bytes(const Parcel& parcel) {
  return static_cast<std::int64_t>(sizeof(SlotHeader)) + parcel.bytes;
}

std::int64_t window_bytes(const std::vector<Parcel>& receives) {
  std::int64_t bytes = sizeof(SlotHeader);  // no window is empty
  for (const Parcel& parcel : receives) bytes += slot_bytes(parcel);
  return bytes;
}

struct Slot {
  SlotHeader* header = nullptr;
  std::span<std::byte> message;
};

Slot slot_at(std::byte* place, std::int64_t bytes) {
  auto* header = std::launder(reinterpret_cast<SlotHeader*>(place));
  return {header, {place + sizeof(SlotHeader), static_cast<std::size_t>(bytes)}};
}

class ShmExchange final : public Exchange {
 public:
  ShmExchange(const Communicator& comm, const std::vector<Parcel>& sends,
              const std::vector<Parcel>& receives) {
    std::byte* mine = allocate(comm, window_bytes(receives));
    std::vector<std::int64_t> places(comm.size(), 0);  // of each rank's message in my window
    std::int64_t offset = 0;
    for (const Parcel& parcel : receives) {
      places[parcel.peer] = offset;
      in_.push_back(slot_at(mine + offset, parcel.bytes));
      new (mine + offset) SlotHeader;
      // The first to touch a page decides where it lies, and pays for it.
      std::memset(in_.back().message.data(), 0, in_.back().message.size());
      offset += slot_bytes(parcel);
    }
    std::vector<std::int64_t> remote_places(comm.size(), 0);
    check_mpi(MPI_Alltoall(places.data(), 1, MPI_INT64_T, remote_places.data(), 1, MPI_INT64_T,
                           comm.handle()),
              "MPI_Alltoall");
    for (const Parcel& parcel : sends) {
      out_.push_back(slot_at(base_of(parcel.peer) + remote_places[parcel.peer], parcel.bytes));
    }
  }

  ~ShmExchange() override {
    // Freeing is collective: a rank that fails alone must not wait here for the others.
    if (std::uncaught_exceptions() > exceptions_) return;
    MPI_Win_unlock_all(window_);
    MPI_Win_free(&window_);
  }

  std::span<std::byte> outgoing(std::size_t i) override {
    while (out_[i].header->full.load(std::memory_order_acquire) != 0) std::this_thread::yield();
    return out_[i].message;
  }

  void post() override {
    for (const Slot& slot : out_) slot.header->full.store(1, std::memory_order_release);
  }

  bool progress() override {
    return std::all_of(in_.begin(), in_.end(), [](const Slot& slot) {
      return slot.header->full.load(std::memory_order_acquire) != 0;
    });
  }

  std::span<std::byte> incoming(std::size_t i) override { return in_[i].message; }

  void release() override {
    for (const Slot& slot : in_) slot.header->full.store(0, std::memory_order_release);
  }

  bool needs_progress() const override { return false; }

 private:
  std::byte* allocate(const Communicator& comm, std::int64_t bytes) {
    MPI_Info info = MPI_INFO_NULL;
    check_mpi(MPI_Info_create(&info), "MPI_Info_create");
    // Each rank's part begins at a page of its own.
    check_mpi(MPI_Info_set(info, "alloc_shared_noncontig", "true"), "MPI_Info_set");
    void* base = nullptr;
    const int code = MPI_Win_allocate_shared(bytes, 1, info, comm.handle(), &base, &window_);
    MPI_Info_free(&info);
    check_mpi(code, "MPI_Win_allocate_shared");
    check_mpi(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), "MPI_Win_lock_all");
    return static_cast<std::byte*>(base);
  }

  std::byte* base_of(int peer) const {
    MPI_Aint bytes = 0;
    int unit = 0;
    void* base = nullptr;
    check_mpi(MPI_Win_shared_query(window_, peer, &bytes, &unit, &base), "MPI_Win_shared_query");
    return static_cast<std::byte*>(base);
  }

  MPI_Win window_ = MPI_WIN_NULL;
  int exceptions_ = std::uncaught_exceptions();
  std::vector<Slot> out_;
  std::vector<Slot> in_;
};

}  // namespace

std::unique_ptr<Exchange> make_shm_exchange(const Communicator& comm, std::vector<Parcel> sends,
                                            std::vector<Parcel> receives) {
  return std::make_unique<ShmExchange>(comm, sends, receives);
}

bool shm_fits(const Communicator& node, const std::vector<Parcel>& receives) {
  const auto all = node.all_gather(window_bytes(receives));
  std::error_code unknown;
  const auto space = std::filesystem::space(kShmFolder, unknown);
  const auto needed = std::accumulate(all.begin(), all.end(), std::uintmax_t{0});
  const int fits = unknown || needed < space.available / 10 * 9 ? 1 : 0;
  return node.all_gather(fits).front() != 0;
}

}  // namespace mla::dist
