#include "dist/combine.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "core/chunk_tree.h"
#include "dist/activity.h"
#include "dist/exchange.h"
#include "dist/stopwatch.h"
#include "dist/wire.h"

namespace mla::dist {
namespace {

/// An item whose partials come together here.
struct Gathered {
  WorkItem item;
  std::vector<NodePartial> nodes;
};

using ItemKey = std::tuple<std::int64_t, std::int64_t, std::int64_t>;  // request, head, row

ItemKey key_of(const WorkItem& item) {
  return {item.request, item.heads.begin, item.rows.begin};
}

std::vector<Message> pack_all(const Communicator& comm, const Batch& batch,
                              const Partition& partition, std::span<const WorkItem> items,
                              const std::vector<kernels::OpenItem>& open, CombineStats& stats) {
  std::map<int, MessagePacker> packers;
  for (const kernels::OpenItem& o : open) {
    const WorkItem& item = items[o.item];
    const int owner = owner_of(partition, partition.pieces_of(comm.rank())[item.piece]);
    if (owner == comm.rank()) continue;
    auto packer = packers.find(owner);
    if (packer == packers.end()) {
      const auto sent = wire_items(batch, partition, comm.rank(), owner);
      packer = packers.emplace(owner, MessagePacker(batch, sent, owner)).first;
    }
    for (const NodePartial& node : o.nodes) packer->second.add(item, node);
    stats.partials_sent += static_cast<std::int64_t>(o.nodes.size());
  }
  std::vector<Message> messages;
  for (auto& [owner, packer] : packers) {
    messages.push_back(packer.finish());
    stats.bytes_sent += static_cast<std::int64_t>(messages.back().bytes.size());
  }
  return messages;
}

void merge_item(const Batch& batch, Gathered& gathered, ResultBuilder& results) {
  const std::int64_t num_chunks = batch.num_chunks(batch.requests[gathered.item.request]);
  std::sort(gathered.nodes.begin(), gathered.nodes.end(),
            [&](const NodePartial& a, const NodePartial& b) {
              return chunks_of(a.node, num_chunks).begin < chunks_of(b.node, num_chunks).begin;
            });
  fold_partials(gathered.nodes, num_chunks);
  if (is_root(gathered.nodes, num_chunks)) {
    results.finish(gathered.item, gathered.nodes[0].partial);
    gathered.nodes.clear();
  }
}

}  // namespace

CombineStats combine(const Communicator& comm, const Batch& batch, const Partition& partition,
                     std::span<const WorkItem> items, const std::vector<kernels::OpenItem>& open,
                     int threads, ResultBuilder& results) {
  enter(Phase::kExchange);
  CombineStats stats;
  const Stopwatch exchange_watch;
  std::vector<std::vector<WireItem>> expected;
  std::vector<Incoming> incoming;
  for (int peer = 0; peer < comm.size(); ++peer) {
    auto coming = wire_items(batch, partition, peer, comm.rank());
    if (coming.empty()) continue;
    incoming.push_back({peer, message_bytes(batch, coming)});
    expected.push_back(std::move(coming));
  }
  const auto outgoing = pack_all(comm, batch, partition, items, open, stats);
  std::vector<Message> received = exchange(comm, outgoing, incoming);
  stats.exchange_seconds = exchange_watch.seconds();

  enter(Phase::kMerge);
  const Stopwatch merge_watch;
  std::map<ItemKey, Gathered> by_item;
  for (const kernels::OpenItem& o : open) {
    const WorkItem& item = items[o.item];
    const Piece& piece = partition.pieces_of(comm.rank())[item.piece];
    if (owner_of(partition, piece) == comm.rank()) by_item[key_of(item)] = {item, o.nodes};
  }
  for (std::size_t m = 0; m < received.size(); ++m) {
    auto nodes = unpack_message(batch, expected[m], received[m]);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      Gathered& gathered = by_item[key_of(expected[m][i].item)];
      gathered.item = expected[m][i].item;
      gathered.nodes.insert(gathered.nodes.end(), nodes[i].begin(), nodes[i].end());
    }
  }
  std::vector<Gathered> gathered;
  for (auto& [key, item] : by_item) gathered.push_back(std::move(item));
  const auto count = static_cast<std::int64_t>(gathered.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < count; ++i) merge_item(batch, gathered[i], results);
  for (const Gathered& g : gathered) {
    if (!g.nodes.empty()) {
      throw MpiError("combine", "the partials of request " + std::to_string(g.item.request) +
                                    " do not cover all its chunks");
    }
  }
  stats.merge_seconds = merge_watch.seconds();
  return stats;
}

}  // namespace mla::dist
