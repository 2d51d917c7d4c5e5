#include "core/chunk_tree.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>
#ifdef MLA_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#endif

namespace mla {
namespace {

/// A stand-in for a partial that remembers in which order it was merged: "(0 1)" is 0 (+) 1.
using Expression = std::string;

Expression merged(const Expression& left, const Expression& right) {
  return "(" + left + " " + right + ")";
}

/// The canonical expression, one level after the other: pair [2i, 2i+1], lone ones pass up.
Expression canonical(std::int64_t num_chunks) {
  std::vector<Expression> level;
  for (std::int64_t c = 0; c < num_chunks; ++c) level.push_back(std::to_string(c));
  while (level.size() > 1) {
    std::vector<Expression> above;
    for (std::size_t i = 0; i < level.size(); i += 2) {
      above.push_back(i + 1 < level.size() ? merged(level[i], level[i + 1]) : level[i]);
    }
    level = above;
  }
  return level.front();
}

/// A fold with its buffers, used as the header says.
class ExpressionFold {
 public:
  explicit ExpressionFold(std::int64_t num_chunks) : num_chunks_(num_chunks), fold_(num_chunks) {}

  void push(TreeNode node, const Expression& value) {
    buffers_.resize(std::max<std::size_t>(buffers_.size(), fold_.size() + 1));
    buffers_[fold_.size()] = value;
    fold_.push(node);
    EXPECT_LE(fold_.size(), max_fold_depth(num_chunks_));
    while (fold_.combine()) {
      Expression& into = buffers_[fold_.size() - 1];
      into = merged(into, buffers_[fold_.size()]);
    }
  }

  std::vector<TreeNode> nodes() const {
    std::vector<TreeNode> nodes;
    for (int i = 0; i < fold_.size(); ++i) nodes.push_back(fold_[i]);
    return nodes;
  }
  const Expression& value(int slot) const { return buffers_[slot]; }

 private:
  std::int64_t num_chunks_;
  TreeFold fold_;
  std::vector<Expression> buffers_;
};

ExpressionFold fold_of(Range chunks, std::int64_t num_chunks) {
  ExpressionFold fold(num_chunks);
  for (std::int64_t c = chunks.begin; c < chunks.end; ++c) fold.push({0, c}, std::to_string(c));
  return fold;
}

/// What an owner gets who is handed the maximal nodes of each range between two of `cuts`.
Expression fold_of_parts(const std::vector<std::int64_t>& cuts, std::int64_t num_chunks) {
  ExpressionFold owner(num_chunks);
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const ExpressionFold part = fold_of({cuts[i], cuts[i + 1]}, num_chunks);
    const std::vector<TreeNode> nodes = part.nodes();
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      owner.push(nodes[n], part.value(static_cast<int>(n)));
    }
  }
  EXPECT_EQ(owner.nodes(), (std::vector<TreeNode>{{root_level(num_chunks), 0}}));
  return owner.value(0);
}

/// By search through all nodes: the fewest that cover `range`, greedily from the left.
std::vector<TreeNode> maximal_nodes_by_search(Range range, std::int64_t num_chunks) {
  std::vector<TreeNode> found;
  for (std::int64_t begin = range.begin; begin < range.end;) {
    for (int level = root_level(num_chunks); level >= 0; --level) {
      const TreeNode node{level, begin >> level};
      const Range chunks = chunks_of(node, num_chunks);
      if (chunks.begin == begin && chunks.end <= range.end) {
        found.push_back(node);
        begin = chunks.end;
        break;
      }
    }
  }
  return found;
}

TEST(ChunkTree, RootIsTheSmallestLevelThatCoversAllChunks) {
  EXPECT_EQ(root_level(1), 0);
  EXPECT_EQ(root_level(2), 1);
  EXPECT_EQ(root_level(3), 2);
  EXPECT_EQ(root_level(4), 2);
  EXPECT_EQ(root_level(5), 3);
  EXPECT_EQ(root_level((std::int64_t{1} << 40) + 1), 41);
  for (std::int64_t n = 1; n < 200; ++n) {
    EXPECT_EQ(chunks_of({root_level(n), 0}, n), (Range{0, n}));
  }
}

TEST(ChunkTree, NodesCoverOnlyChunksThatExist) {
  EXPECT_EQ(chunks_of({1, 1}, 3), (Range{2, 3}));
  EXPECT_EQ(chunks_of({2, 0}, 3), (Range{0, 3}));
  EXPECT_EQ(chunks_of({0, 2}, 3), (Range{2, 3}));
  EXPECT_TRUE(chunks_of({1, 2}, 3).empty());
}

TEST(ChunkTree, MaximalNodesAreThoseASearchFinds) {
  for (std::int64_t n = 1; n <= 34; ++n) {
    for (std::int64_t begin = 0; begin <= n; ++begin) {
      for (std::int64_t end = begin; end <= n; ++end) {
        const std::vector<TreeNode> nodes = maximal_nodes({begin, end}, n);
        EXPECT_EQ(nodes, maximal_nodes_by_search({begin, end}, n));
        EXPECT_EQ(count_maximal_nodes({begin, end}, n), static_cast<std::int64_t>(nodes.size()));
      }
    }
  }
}

TEST(ChunkTree, MaximalNodesOfHugeRequestsAreFew) {
  const std::int64_t n = (std::int64_t{1} << 34) - 1;
  EXPECT_EQ(count_maximal_nodes({0, n}, n), 1);
  EXPECT_LE(count_maximal_nodes({1, n - 1}, n), max_fold_depth(n));
  EXPECT_EQ(maximal_nodes({0, 1 << 20}, n), (std::vector<TreeNode>{{20, 0}}));
}

TEST(TreeFold, LeavesExactlyTheMaximalNodesOfAnyRange) {
  for (std::int64_t n = 1; n <= 34; ++n) {
    for (std::int64_t begin = 0; begin <= n; ++begin) {
      for (std::int64_t end = begin; end <= n; ++end) {
        EXPECT_EQ(fold_of({begin, end}, n).nodes(), maximal_nodes({begin, end}, n));
      }
    }
  }
}

TEST(TreeFold, MergesInTheCanonicalOrder) {
  EXPECT_EQ(canonical(5), "(((0 1) (2 3)) 4)");
  for (std::int64_t n = 1; n <= 130; ++n) {
    const ExpressionFold fold = fold_of({0, n}, n);
    EXPECT_EQ(fold.value(0), canonical(n));
    EXPECT_EQ(fold.nodes(), (std::vector<TreeNode>{{root_level(n), 0}}));
  }
}

TEST(TreeFold, GivesTheSameExpressionForEverySplitInTwoOrThree) {
  for (std::int64_t n = 1; n <= 20; ++n) {
    for (std::int64_t a = 0; a <= n; ++a) {
      for (std::int64_t b = a; b <= n; ++b) {
        EXPECT_EQ(fold_of_parts({0, a, b, n}, n), canonical(n));
      }
    }
  }
}

TEST(TreeFold, KeepsItsDepthForHugeRequests) {
  const std::int64_t n = std::int64_t{1} << 34;
  TreeFold fold(n);
  for (const TreeNode& node : maximal_nodes({1, n - 1}, n)) {
    fold.push(node);
    EXPECT_FALSE(fold.combine());
  }
  EXPECT_LE(fold.size(), max_fold_depth(n));
}

#ifdef MLA_HAVE_RAPIDCHECK
std::vector<std::int64_t> random_cuts(std::int64_t num_chunks) {
  auto cuts =
      *rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(0, num_chunks));
  cuts.push_back(0);
  cuts.push_back(num_chunks);
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

RC_GTEST_PROP(TreeFold, GivesTheSameExpressionForAnySplit, ()) {
  const auto n = *rc::gen::inRange<std::int64_t>(1, 700);
  RC_ASSERT(fold_of_parts(random_cuts(n), n) == canonical(n));
}

RC_GTEST_PROP(TreeFold, LeavesTheMaximalNodesHoweverTheRangeArrives, ()) {
  const auto n = *rc::gen::inRange<std::int64_t>(1, 700);
  const auto begin = *rc::gen::inRange<std::int64_t>(0, n);
  const auto end = *rc::gen::inRange<std::int64_t>(begin, n + 1);
  const auto middle = *rc::gen::inRange<std::int64_t>(begin, end + 1);
  TreeFold fold(n);
  for (const Range part : {Range{begin, middle}, Range{middle, end}}) {
    for (const TreeNode& node : maximal_nodes(part, n)) {
      fold.push(node);
      while (fold.combine()) {
      }
    }
  }
  std::vector<TreeNode> left;
  for (int i = 0; i < fold.size(); ++i) left.push_back(fold[i]);
  RC_ASSERT(left == maximal_nodes({begin, end}, n));
}

RC_GTEST_PROP(ChunkTree, MaximalNodesTileTheRange, ()) {
  const auto n = *rc::gen::inRange<std::int64_t>(1, std::int64_t{1} << 40);
  const auto begin = *rc::gen::inRange<std::int64_t>(0, n);
  const auto end = *rc::gen::inRange<std::int64_t>(begin, n + 1);
  std::int64_t at = begin;
  for (const TreeNode& node : maximal_nodes({begin, end}, n)) {
    RC_ASSERT(chunks_of(node, n).begin == at);
    at = chunks_of(node, n).end;
  }
  RC_ASSERT(at == end);
  RC_ASSERT(count_maximal_nodes({begin, end}, n) <= max_fold_depth(n));
}
#endif

}  // namespace
}  // namespace mla
