#include "tests/kernels/device_plan_check.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/chunk_tree.h"
#include "core/partial.h"

namespace mla::kernels::cuda {
namespace {

/// The parts of each (item, first row), in the order of their keys.
using PartsOfRows = std::map<std::pair<std::int64_t, std::int32_t>, std::vector<const Part*>>;
PartsOfRows parts_of_rows(const DevicePlan& plan) {
  PartsOfRows parts;
  for (const auto& team : parts_of_teams(plan)) {
    for (const Part* part : team) parts[{part->q, part->row_begin}].push_back(part);
  }
  for (auto& [key, of_rows] : parts) {
    std::sort(of_rows.begin(), of_rows.end(),
              [](const Part* a, const Part* b) { return a->token_begin < b->token_begin; });
  }
  return parts;
}

/// What is wrong with a plan; each check returns an empty text if all is well.
class Checker {
 public:
  explicit Checker(const PlanProblem& problem) : problem_(problem), plan_(problem.plan()) {}

  std::string run() {
    for (const auto check : {&Checker::coverage, &Checker::steps, &Checker::places,
                             &Checker::merges, &Checker::shares}) {
      std::string wrong = (this->*check)();
      if (!wrong.empty()) return wrong;
    }
    return {};
  }

  /// Every row of every item reads its keys once, in order, and no part has too many rows.
  std::string coverage() {
    PartsOfRows parts = parts_of_rows(plan_);
    for (const DeviceItem& item : problem_.items) {
      const Range tokens = tokens_of(item);
      if (tokens.empty() && item.context_len > 0) continue;
      for (std::int64_t row = item.rows.begin; row < item.rows.end;) {
        const auto found = parts.find({item.q, static_cast<std::int32_t>(row)});
        if (found == parts.end()) return "rows are missing";
        std::int64_t token = tokens.begin;
        const std::int64_t rows = found->second.front()->rows;
        for (const Part* part : found->second) {
          if (part->token_begin != token || part->rows != rows) return "keys are not covered once";
          token = part->token_end;
        }
        if (token != tokens.end) return "keys are missing";
        if (rows > problem_.geometry.rows_per_part) return "too many rows";
        row += rows;
        if (row > item.rows.end) return "more rows than the item has";
        parts.erase(found);
      }
    }
    return parts.empty() ? "" : "parts of nothing";
  }

  /// Parts are chunks in exact plans, and cut at tiles in fast ones.
  std::string steps() {
    const bool exact = problem_.sizes.exact;
    const std::int64_t step = exact ? problem_.sizes.chunk_tokens : problem_.geometry.tile_tokens;
    for (const auto& team : parts_of_teams(plan_)) {
      std::set<std::pair<std::int64_t, std::int32_t>> seen;
      for (const Part* part : team) {
        const std::int64_t size = std::int64_t{part->token_end} - part->token_begin;
        if (part->token_begin % step != 0) return "a part begins within a step";
        if (part->token_begin % plan_.part_alignment != 0) return "a part is not aligned";
        if (part->token_end % step != 0 && part->token_end != part->context_len) {
          return "a part ends within a step";
        }
        if (exact && size > step) return "a part is more than a chunk";
        if (!exact && !seen.insert({part->q, part->row_begin}).second) {
          return "two parts of one team for the same rows";
        }
      }
    }
    return {};
  }

  /// Partials lie in the buffer, and none upon another.
  std::string places() {
    std::map<std::int64_t, std::int64_t> sizes;            // by offset
    std::set<std::pair<std::int64_t, std::int64_t>> rows;  // offset, row
    const auto add = [&](const PartialPlace& place, std::int64_t count) {
      const std::int64_t floats = partial_floats(place.rows, kPlanDv);
      bool fine =
          place.offset % 16 == 0 && sizes.emplace(place.offset, floats).first->second == floats;
      for (std::int64_t r = 0; r < count; ++r) {
        fine = fine && rows.insert({place.offset, place.row_begin + r}).second;
        fine = fine && place.row_begin + r < place.rows;
      }
      return fine;
    };
    for (const Part& part : plan_.parts) {
      if (part.partial.offset >= 0 && !add(part.partial, part.rows)) return "a partial's place";
      if (part.merge >= 0 && part.partial.offset < 0) return "a merge without a partial";
    }
    for (const Merge& merge : plan_.merges) {
      if (merge.node.offset >= 0 && !add(merge.node, merge.rows)) return "a node's place";
    }
    std::int64_t end = 0;
    for (const auto& [offset, floats] : sizes) {
      if (offset < end) return "partials overlap";
      end = offset + floats;
    }
    return end <= plan_.partial_floats ? "" : "partials exceed the buffer";
  }

  /// Merges get the partials of their rows in order and lead to the result, or to the nodes of the
  /// canonical tree.
  std::string merges() {
    std::vector<std::int64_t> counts(plan_.merges.size(), 0);
    for (const auto& [key, parts] : parts_of_rows(plan_)) {
      const DeviceItem& item = problem_.items[key.first];
      const bool open = item.chunks != all_chunks(item);
      for (const Part* part : parts) {
        const std::int64_t chunk = part->token_begin / problem_.sizes.chunk_tokens;
        const std::int64_t node = open ? node_offset(item, chunk) : -1;
        if (part->merge < 0) {
          if (part->partial.offset != node) return "a part without a merge leads elsewhere";
          continue;
        }
        const Merge& merge = plan_.merges[part->merge];
        if (merge.node.offset != node) return "a merge leads elsewhere";
        if (merge.out != part->out || merge.lse != part->lse || merge.heads != part->heads ||
            merge.rows != part->rows || merge.row_begin != part->row_begin) {
          return "a merge of other rows";
        }
        if (part->partial.offset != merge.first.offset + counts[part->merge]++ * merge.stride) {
          return "partials are out of order";
        }
      }
    }
    for (std::size_t m = 0; m < counts.size(); ++m) {
      if (counts[m] != plan_.merges[m].count || counts[m] < 2) return "a merge's count";
    }
    return {};
  }

  /// The blocks of a merge are dealt out once, and the teams that have parts of it are among them.
  std::string shares() {
    const int teams = plan_.geometry.teams;
    const int blocks = plan_.geometry.blocks_per_team;
    if (std::ssize(plan_.share_offsets) != teams + 1) return "share_offsets";
    std::vector<std::set<std::int32_t>> dealt(plan_.merges.size());
    const auto parts = parts_of_teams(plan_);
    for (int team = 0; team < teams; ++team) {
      std::set<std::int32_t> shared;
      for (std::int32_t s = plan_.share_offsets[team]; s < plan_.share_offsets[team + 1]; ++s) {
        const MergeShare& share = plan_.shares[s];
        shared.insert(share.merge);
        for (int b = 0; b < blocks; ++b) {
          if (!dealt[share.merge].insert(share.first_block + b).second) return "a block twice";
        }
      }
      for (const Part* part : parts[team]) {
        if (part->merge >= 0 && !shared.contains(part->merge)) return "a team leaves its merge";
      }
    }
    for (std::size_t m = 0; m < dealt.size(); ++m) {
      if (std::ssize(dealt[m]) != plan_.merges[m].blocks) return "a merge's blocks";
      if (*dealt[m].rbegin() + 1 != plan_.merges[m].blocks) return "a merge's blocks' numbers";
    }
    return {};
  }

 private:
  Range all_chunks(const DeviceItem& item) const {
    return {0, ceil_div(item.context_len, problem_.sizes.chunk_tokens)};
  }
  Range tokens_of(const DeviceItem& item) const {
    const std::int64_t chunk = problem_.sizes.chunk_tokens;
    return {item.chunks.begin * chunk, std::min(item.context_len, item.chunks.end * chunk)};
  }
  std::int64_t node_offset(const DeviceItem& item, std::int64_t chunk) const {
    const std::int64_t all = all_chunks(item).end;
    std::int64_t offset = plan_.node_offsets[item.q];
    for (const TreeNode node : maximal_nodes(item.chunks, all)) {
      if (chunk < chunks_of(node, all).end) return offset;
      offset += partial_floats(item.rows.size(), kPlanDv);
    }
    return -2;
  }

  PlanProblem problem_;
  DevicePlan plan_;
};

}  // namespace

std::vector<std::vector<const Part*>> parts_of_teams(const DevicePlan& plan) {
  std::vector<std::vector<const Part*>> teams(plan.geometry.teams);
  for (int team = 0; team < plan.geometry.teams; ++team) {
    for (std::int32_t p = team; p >= 0; p = plan.parts[p].next) {
      if (plan.parts[p].rows > 0) teams[team].push_back(&plan.parts[p]);
    }
  }
  return teams;
}

std::string errors_of(const PlanProblem& problem) {
  return Checker(problem).run();
}

}  // namespace mla::kernels::cuda
