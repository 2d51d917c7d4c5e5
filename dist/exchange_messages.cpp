#include <algorithm>
#include <numeric>

#include "core/aligned_buffer.h"
#include "dist/exchange.h"

namespace mla::dist {
namespace {

constexpr int kTag = 17;
constexpr std::int64_t kLine = 64;  // bytes; counts of MPI are ints, so we count lines

/// Room for the messages of some parcels, one after the other.
class Mailbox {
 public:
  void resize(const std::vector<Parcel>& parcels) {
    parcels_ = parcels;
    offsets_ = {0};
    for (const Parcel& parcel : parcels_) offsets_.push_back(offsets_.back() + parcel.bytes);
    const auto bytes = static_cast<std::size_t>(offsets_.back());
    if (bytes_.size() < bytes) bytes_ = AlignedBuffer<std::byte>(bytes);
  }

  std::size_t size() const { return parcels_.size(); }
  int peer(std::size_t i) const { return parcels_[i].peer; }
  std::span<std::byte> message(std::size_t i) {
    return bytes_.span().subspan(static_cast<std::size_t>(offsets_[i]),
                                 static_cast<std::size_t>(parcels_[i].bytes));
  }
  int lines(std::size_t i) const { return static_cast<int>(parcels_[i].bytes / kLine); }
  int first_line(std::size_t i) const { return static_cast<int>(offsets_[i] / kLine); }
  std::byte* data() { return bytes_.data(); }

 private:
  std::vector<Parcel> parcels_;
  std::vector<std::int64_t> offsets_{0};
  AlignedBuffer<std::byte> bytes_;
};

/// MPI's name for 64 bytes.
class LineType {
 public:
  LineType() {
    check_mpi(MPI_Type_contiguous(static_cast<int>(kLine), MPI_BYTE, &type_),
              "MPI_Type_contiguous");
    check_mpi(MPI_Type_commit(&type_), "MPI_Type_commit");
  }
  ~LineType() { MPI_Type_free(&type_); }
  LineType(const LineType&) = delete;
  LineType& operator=(const LineType&) = delete;
  MPI_Datatype handle() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

/// What exchanges by messages have in common.
class MessageExchange : public Exchange {
 public:
  explicit MessageExchange(const Communicator& comm) : comm_(comm) {}

  void resize(const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) override {
    out_.resize(sends);
    in_.resize(receives);
  }

  std::span<std::byte> outgoing(std::size_t i) override { return out_.message(i); }
  std::span<std::byte> incoming(std::size_t i) override { return in_.message(i); }
  void release() override {}
  bool needs_progress() const override { return true; }

  bool progress() override {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
    return done != 0;
  }

 protected:
  const Communicator& comm_;
  LineType line_;
  Mailbox out_;
  Mailbox in_;
  std::vector<MPI_Request> requests_;
};

class P2pExchange final : public MessageExchange {
 public:
  using MessageExchange::MessageExchange;

  void post() override {
    requests_.assign(in_.size() + out_.size(), MPI_REQUEST_NULL);
    for (std::size_t i = 0; i < in_.size(); ++i) {
      check_mpi(MPI_Irecv(in_.message(i).data(), in_.lines(i), line_.handle(), in_.peer(i), kTag,
                          comm_.handle(), &requests_[i]),
                "MPI_Irecv");
    }
    for (std::size_t i = 0; i < out_.size(); ++i) {
      check_mpi(MPI_Isend(out_.message(i).data(), out_.lines(i), line_.handle(), out_.peer(i), kTag,
                          comm_.handle(), &requests_[in_.size() + i]),
                "MPI_Isend");
    }
  }
};

class AlltoallvExchange final : public MessageExchange {
 public:
  using MessageExchange::MessageExchange;

  void resize(const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) override {
    MessageExchange::resize(sends, receives);
    send_ = Layout(out_, comm_.size());
    receive_ = Layout(in_, comm_.size());
  }

  void post() override {
    requests_.assign(1, MPI_REQUEST_NULL);
    check_mpi(MPI_Ialltoallv(out_.data(), send_.counts.data(), send_.offsets.data(), line_.handle(),
                             in_.data(), receive_.counts.data(), receive_.offsets.data(),
                             line_.handle(), comm_.handle(), requests_.data()),
              "MPI_Ialltoallv");
  }

 private:
  struct Layout {
    Layout() = default;
    Layout(const Mailbox& box, int ranks) : counts(ranks, 0), offsets(ranks, 0) {
      for (std::size_t i = 0; i < box.size(); ++i) {
        counts[box.peer(i)] = box.lines(i);
        offsets[box.peer(i)] = box.first_line(i);
      }
    }
    std::vector<int> counts;
    std::vector<int> offsets;
  };
  Layout send_;
  Layout receive_;
};

}  // namespace

std::unique_ptr<Exchange> make_p2p_exchange(const Communicator& comm,
                                            const std::vector<Parcel>& sends,
                                            const std::vector<Parcel>& receives) {
  auto exchange = std::make_unique<P2pExchange>(comm);
  exchange->resize(sends, receives);
  return exchange;
}

std::unique_ptr<Exchange> make_alltoallv_exchange(const Communicator& comm,
                                                  const std::vector<Parcel>& sends,
                                                  const std::vector<Parcel>& receives) {
  auto exchange = std::make_unique<AlltoallvExchange>(comm);
  exchange->resize(sends, receives);
  return exchange;
}

}  // namespace mla::dist
