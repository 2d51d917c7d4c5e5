#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/simt/tile.h"

namespace mla::kernels::cuda::simt {
namespace {

struct NamedProfile {
  std::string name;
  DeviceProfile profile;
};

/// Data sheets, but for the S80's registers, which are a guess on the safe side.
std::vector<NamedProfile> profiles() {
  return {{"NVIDIA H200", {227 * 1024, 255, 64 * 1024, 32, 132}},
          {"NVIDIA H200 within 16 KB", {16 * 1024, 255, 64 * 1024, 32, 132}},
          {"Moore Threads S80", {16 * 1024, 168, 64 * 1024, 32, 128}},
          {"a third of an S80's registers", {16 * 1024, 168, 21 * 1024, 32, 128}},
          {"AMD MI250, 64 lanes", {64 * 1024, 256, 128 * 1024, 64, 104}}};
}

TEST(SimtTile, KeepsWithinTheProfileWhateverTheSizes) {
  for (const auto& [name, profile] : profiles()) {
    for (std::int64_t rows = 1; rows <= 300; ++rows) {
      for (const std::int64_t d_v : {8, 16, 128, 256, 264, 512, 1024, 4096}) {
        const Tile tile = choose_tile(profile, rows, d_v);
        EXPECT_LE(tile.shared_bytes(), profile.shared_bytes_per_block) << name;
        EXPECT_LE(tile.registers_per_thread(), profile.registers_per_thread) << name;
        EXPECT_LE(std::int64_t{tile.registers_per_thread()} * tile.threads(),
                  profile.registers_per_multiprocessor)
            << name;
        EXPECT_EQ(tile.threads() % profile.lanes_per_warp, 0) << name;
      }
    }
  }
}

TEST(SimtTile, NeverNeedsOver16KilobytesOfSharedMemory) {
  for (const int thread_rows : {4, 8}) {
    for (const int row_groups : {1, 2}) {
      for (const int thread_dims : {4, 8}) {
        EXPECT_LE((Tile{thread_rows, row_groups, thread_dims}.shared_bytes()), 16 * 1024);
      }
    }
  }
}

TEST(SimtTile, HasNoMoreRowGroupsThanRowsNeed) {
  const DeviceProfile h200 = profiles()[0].profile;
  EXPECT_EQ(choose_tile(h200, 1, 512).rows(), 8);
  EXPECT_EQ(choose_tile(h200, 8, 512).rows(), 8);
  EXPECT_EQ(choose_tile(h200, 9, 512).rows(), 16);
  EXPECT_EQ(choose_tile(h200, 16, 512).rows(), 16);
  EXPECT_EQ(choose_tile(h200, 128, 512).rows(), 16);
}

TEST(SimtTile, IsFoundAgainFromItsOwnRows) {
  for (const auto& [name, profile] : profiles()) {
    for (std::int64_t rows = 1; rows <= 300; ++rows) {
      const Tile tile = choose_tile(profile, rows, 512);
      EXPECT_EQ(choose_tile(profile, tile.rows(), 512), tile) << name << ", " << rows << " rows";
    }
  }
}

TEST(SimtTile, FillsTheRegistersOfAMultiprocessor) {
  const DeviceProfile h200 = profiles()[0].profile;
  EXPECT_EQ(resident_blocks(h200, choose_tile(h200, 128, 512)), 2);
  EXPECT_EQ(resident_blocks(h200, choose_tile(h200, 1, 512)), 4);
}

TEST(SimtTile, SpreadsARowsKeysOverDifferentBanks) {
  for (const int row_groups : {1, 2}) {
    const Tile tile{8, row_groups, 8};
    std::vector<bool> taken(32);
    for (int key = 0; key < 8; ++key) {
      for (int row = 0; row < 4; ++row) {
        const int bank = (key * tile.score_stride() + row) % 32;
        EXPECT_FALSE(taken[bank]);
        taken[bank] = true;
      }
    }
  }
}

}  // namespace
}  // namespace mla::kernels::cuda::simt
