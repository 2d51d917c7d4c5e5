#include "core/partial_fold.h"

#include <cstring>
#include <random>

#include <gtest/gtest.h>

namespace mla {
namespace {

constexpr std::int64_t kRows = 3;
constexpr std::int64_t kDv = 16;

using Floats = std::vector<float>;

PartialView view_of(Floats& storage) {
  return partial_at(storage.data(), kRows, kDv);
}

/// Chunk partials of a request; the rows of some chunks are empty, as under a causal mask.
std::vector<Floats> random_chunks(std::int64_t num_chunks) {
  std::mt19937 random(static_cast<unsigned>(num_chunks));
  std::normal_distribution<float> normal;
  std::vector<Floats> chunks(num_chunks, Floats(partial_floats(kRows, kDv)));
  for (Floats& chunk : chunks) {
    const PartialView view = view_of(chunk);
    clear_partial(view);
    for (std::int64_t row = 0; row < kRows; ++row) {
      if (random() % 4 == 0) continue;
      view.m_log2[row] = 10 * normal(random);
      view.l[row] = 1 + std::abs(normal(random));
      for (std::int64_t d = 0; d < kDv; ++d) view.o[row * kDv + d] = normal(random);
    }
  }
  return chunks;
}

std::vector<NodePartial> leaves(std::vector<Floats>& chunks, Range range) {
  std::vector<NodePartial> nodes;
  for (std::int64_t c = range.begin; c < range.end; ++c) {
    nodes.push_back({{0, c}, view_of(chunks[c])});
  }
  return nodes;
}

std::vector<TreeNode> tree_nodes(const std::vector<NodePartial>& nodes) {
  std::vector<TreeNode> result;
  for (const NodePartial& n : nodes) result.push_back(n.node);
  return result;
}

TEST(FoldPartials, LeavesTheMaximalNodes) {
  for (std::int64_t n = 1; n <= 17; ++n) {
    for (std::int64_t begin = 0; begin < n; ++begin) {
      for (std::int64_t end = begin + 1; end <= n; ++end) {
        std::vector<Floats> chunks = random_chunks(n);
        std::vector<NodePartial> nodes = leaves(chunks, {begin, end});
        fold_partials(nodes, n);
        EXPECT_EQ(tree_nodes(nodes), maximal_nodes({begin, end}, n));
        EXPECT_EQ(is_root(nodes, n), begin == 0 && end == n);
      }
    }
  }
}

TEST(FoldPartials, GivesTheSameBitsForEverySplit) {
  for (const std::int64_t n : {1, 2, 3, 5, 8, 13, 21}) {
    std::vector<Floats> whole = random_chunks(n);
    std::vector<NodePartial> root = leaves(whole, {0, n});
    fold_partials(root, n);
    ASSERT_TRUE(is_root(root, n));
    for (std::int64_t cut = 0; cut <= n; ++cut) {
      std::vector<Floats> chunks = random_chunks(n);
      std::vector<NodePartial> parts;
      for (const Range range : {Range{0, cut}, Range{cut, n}}) {
        std::vector<NodePartial> nodes = leaves(chunks, range);
        fold_partials(nodes, n);
        parts.insert(parts.end(), nodes.begin(), nodes.end());
      }
      fold_partials(parts, n);
      ASSERT_TRUE(is_root(parts, n));
      EXPECT_EQ(std::memcmp(chunks[0].data(), whole[0].data(), whole[0].size() * sizeof(float)), 0)
          << n << " chunks cut at " << cut;
    }
  }
}

TEST(FoldPartials, MergesIntoTheMemoryOfTheLeftSide) {
  std::vector<Floats> chunks = random_chunks(4);
  std::vector<NodePartial> nodes = leaves(chunks, {0, 4});
  const float* first = nodes[0].partial.o;
  fold_partials(nodes, 4);
  EXPECT_EQ(nodes[0].partial.o, first);
}

TEST(FoldPartials, OfNothingIsNothing) {
  std::vector<NodePartial> nodes;
  fold_partials(nodes, 5);
  EXPECT_TRUE(nodes.empty());
  EXPECT_FALSE(is_root(nodes, 5));
}

}  // namespace
}  // namespace mla
