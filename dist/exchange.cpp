#include "dist/exchange.h"

#include <algorithm>

#include "dist/activity.h"

namespace mla::dist {
namespace {

constexpr std::int64_t kSliceBytes = std::int64_t{1} << 30;  // MPI counts are ints
constexpr int kTag = 17;

/// Calls post(offset, count) for each slice of a message; slices of a pair arrive in order.
template <class Post>
void for_each_slice(std::int64_t bytes, Post post) {
  for (std::int64_t done = 0; done < bytes; done += kSliceBytes) {
    post(done, static_cast<int>(std::min(kSliceBytes, bytes - done)));
  }
}

}  // namespace

std::vector<Message> exchange(const Communicator& comm, const std::vector<Message>& outgoing,
                              const std::vector<Incoming>& incoming) {
  std::vector<Message> received;
  std::vector<MPI_Request> requests;
  for (const Incoming& in : incoming) {
    received.push_back({in.peer, AlignedBuffer<std::byte>(static_cast<std::size_t>(in.bytes))});
    for_each_slice(in.bytes, [&](std::int64_t offset, int count) {
      requests.emplace_back();
      check_mpi(MPI_Irecv(received.back().bytes.data() + offset, count, MPI_BYTE, in.peer, kTag,
                          comm.handle(), &requests.back()),
                "MPI_Irecv");
    });
  }
  for (const Message& out : outgoing) {
    for_each_slice(static_cast<std::int64_t>(out.bytes.size()),
                   [&](std::int64_t offset, int count) {
                     requests.emplace_back();
                     check_mpi(MPI_Isend(out.bytes.data() + offset, count, MPI_BYTE, out.peer, kTag,
                                         comm.handle(), &requests.back()),
                               "MPI_Isend");
                   });
  }
  const Waiting waiting;
  check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
            "MPI_Waitall");
  return received;
}

}  // namespace mla::dist
