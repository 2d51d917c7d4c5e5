#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <numeric>
#include <thread>

#include "core/range.h"
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
  std::int64_t bytes = sizeof(SlotHeader);  // room to align; no window is empty
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
  explicit ShmExchange(const Communicator& comm) : comm_(comm) {}

  ~ShmExchange() override {
    // Freeing is collective: a rank that fails alone must not wait here for the others.
    if (std::uncaught_exceptions() == exceptions_) free_window();
  }

  void resize(const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) override {
    reserve(window_bytes(receives));
    std::vector<std::int64_t> places(comm_.size(), 0);  // of each rank's message in my window
    // Open MPI promises no alignment, but addresses differ between ranks by whole pages.
    constexpr auto kAlignment = static_cast<std::int64_t>(alignof(SlotHeader));
    const auto address = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(mine_));
    std::int64_t offset = round_up(address, kAlignment) - address;
    in_.clear();
    for (const Parcel& parcel : receives) {
      places[parcel.peer] = offset;
      in_.push_back(slot_at(mine_ + offset, parcel.bytes));
      new (mine_ + offset) SlotHeader;
      offset += slot_bytes(parcel);
    }
    std::vector<std::int64_t> remote_places(comm_.size(), 0);
    check_mpi(MPI_Alltoall(places.data(), 1, MPI_INT64_T, remote_places.data(), 1, MPI_INT64_T,
                           comm_.handle()),
              "MPI_Alltoall");
    out_.clear();
    for (const Parcel& parcel : sends) {
      out_.push_back(slot_at(base_of(parcel.peer) + remote_places[parcel.peer], parcel.bytes));
    }
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
  /// Makes the window larger, on all ranks, if it is too small on any.
  void reserve(std::int64_t bytes) {
    const auto short_of = comm_.all_gather(bytes > bytes_ ? 1 : 0);
    if (std::count(short_of.begin(), short_of.end(), 1) == 0) return;
    bytes_ = std::max(bytes_, bytes + bytes_ / 4);  // what grew once may grow again
    free_window();
    MPI_Info info = MPI_INFO_NULL;
    check_mpi(MPI_Info_create(&info), "MPI_Info_create");
    // Each rank's part lies on pages of its own.
    check_mpi(MPI_Info_set(info, "alloc_shared_noncontig", "true"), "MPI_Info_set");
    const int code = MPI_Win_allocate_shared(bytes_, 1, info, comm_.handle(), &mine_, &window_);
    MPI_Info_free(&info);
    check_mpi(code, "MPI_Win_allocate_shared");
    check_mpi(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), "MPI_Win_lock_all");
    // The first to touch a page decides where it lies, and pays for it.
    std::memset(mine_, 0, static_cast<std::size_t>(bytes_));
  }

  void free_window() {
    if (window_ == MPI_WIN_NULL) return;
    MPI_Win_unlock_all(window_);
    MPI_Win_free(&window_);
  }

  std::byte* base_of(int peer) const {
    MPI_Aint bytes = 0;
    int unit = 0;
    void* base = nullptr;
    check_mpi(MPI_Win_shared_query(window_, peer, &bytes, &unit, &base), "MPI_Win_shared_query");
    return static_cast<std::byte*>(base);
  }

  const Communicator& comm_;
  MPI_Win window_ = MPI_WIN_NULL;
  std::byte* mine_ = nullptr;
  std::int64_t bytes_ = 0;  // of mine_
  int exceptions_ = std::uncaught_exceptions();
  std::vector<Slot> out_;
  std::vector<Slot> in_;
};

}  // namespace

std::unique_ptr<Exchange> make_shm_exchange(const Communicator& comm,
                                            const std::vector<Parcel>& sends,
                                            const std::vector<Parcel>& receives) {
  auto exchange = std::make_unique<ShmExchange>(comm);
  exchange->resize(sends, receives);
  return exchange;
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
