#include <iostream>

#include <core/partition.h>
#include <kernels/backend.h>

int main() {
  mla::Batch batch;
  batch.shape = {.h_q = 16, .h_kv = 1, .d_qk = 576, .d_v = 512};
  batch.requests = {{.custom_id = "a", .context_len = 8 * mla::kDefaultChunkTokens}};
  const mla::Partition partition = mla::make_partition(batch, {mla::ShardMode::Kind::kKv}, 2);
  std::cout << partition.pieces.at(0).chunks.size() << " chunks on rank 0, "
            << partition.pieces.at(1).chunks.size() << " on rank 1; "
            << mla::kernels::backends().size() << " backends\n";
}
