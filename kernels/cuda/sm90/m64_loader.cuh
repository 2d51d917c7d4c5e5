#pragma once

#include <cuda.h>

#include "kernels/cuda/sm90/m64_block.cuh"

namespace mla::kernels::cuda::sm90::m64 {

/// One warp that copies some slabs of every tile of a team's parts, one after the other.
struct Loader {
  const DecodeArgs& args;
  const CUtensorMap& map;
  const int box_tokens;
  const int page_size;
  int next_part;
  const std::int32_t* block = nullptr;  // of the next tile
  int page = 0;                         // in *block
  int slot = 0;                         // of the tile's first token
  int tokens = 0;                       // from there to the end of the part
  int tile = 0;                         // of the part
  int kv_head = 0;

  __device__ Loader(const DecodeArgs& a, const CUtensorMap& m, int box, int team)
      : args(a),
        map(m),
        box_tokens(box),
        page_size(static_cast<int>(a.page_block_size)),
        next_part(team) {
    find_part();
  }

  /// Whether there is a next tile.
  __device__ bool has_next() const { return tokens > 0; }

  __device__ void find_part() {
    while (tokens <= 0 && next_part >= 0) {
      const Part& part = args.parts[next_part];
      next_part = part.next;
      tokens = keys_of(part);
      tile = 0;
      kv_head = part.kv_head;
      block = args.block_tables + part.block_table + part.token_begin / page_size;
      slot = part.token_begin % page_size;
      if (tokens > 0) page = *block;
    }
  }

  /// Goes on by `n` tokens, which end no page early: a box, or a tile of a page.
  __device__ void advance(int n) {
    tokens -= n;
    slot += n;
    if (slot >= page_size) {
      slot -= page_size;
      ++block;
    }
  }

  /// Copies slab `slab` of the next tile to address `to`, telling `barrier`; every lane one of its
  /// own, or none: -1. Does nothing if there is no next tile.
  __device__ void copy_next(int slab, std::uint32_t to, std::uint32_t barrier) {
    if (!has_next()) return;
    const bool copies = slab >= 0;
    const int x = slab * kBoxElements;
    if (box_tokens == kTokens) {
      if (copies) {
        arrive_and_expect(barrier, kSlabBytes);
        copy_box(to, &map, barrier, x, slot, page, kv_head);
      }
      advance(kTokens);
    } else {
      const int boxes = (min(kTokens, tokens) + box_tokens - 1) / box_tokens;
      const int box_bytes = box_tokens * kBoxElements * 2;
      if (copies) arrive_and_expect(barrier, boxes * box_bytes);
      for (int box = 0; box < boxes; ++box) {
        if (copies) copy_box(to + box * box_bytes, &map, barrier, x, slot, *block, kv_head);
        advance(box_tokens);
      }
    }
    __syncwarp();
    ++tile;
    if (tokens > 0) {
      page = *block;  // on its way until the next tile
    } else {
      find_part();
    }
  }
};

}  // namespace mla::kernels::cuda::sm90::m64
