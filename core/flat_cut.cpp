#include "core/flat_cut.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mla {
namespace {

constexpr double kTolerance = 1.02;  // what a run may cost, in even shares, for larger subtrees

/// All chunks of all requests laid end to end.
class FlatChunks {
 public:
  FlatChunks(const Batch& batch, std::int64_t heads, const CostModel& cost) : batch_(batch) {
    double total = 0;
    cost_before_.reserve(batch.requests.size() + 1);
    for (const Request& request : batch.requests) {
      cost_before_.push_back(total);
      const std::int64_t chunks = batch.num_chunks(request);
      if (chunks == 0) {
        full_chunk_cost_.push_back(0);
        continue;
      }
      full_chunk_cost_.push_back(cost.chunk(batch, request, 0, heads));
      total += full_chunk_cost_.back() * static_cast<double>(chunks - 1) +
               cost.chunk(batch, request, chunks - 1, heads);
    }
    cost_before_.push_back(total);
    full_chunk_cost_.push_back(0);
  }

  double total() const { return cost_before_.back(); }

  double cost_before(Place place) const {
    return cost_before_[place.request] +
           static_cast<double>(place.chunk) * full_chunk_cost_[place.request];
  }

  /// The earliest places to cut at so that no part costs more than `limit`: [parts + 1], the first
  /// of them begin() if there is a way to cut so.
  std::vector<Place> earliest_cuts(std::int64_t parts, double limit) const {
    std::vector<Place> cuts(parts + 1, end());
    for (std::int64_t part = parts; part-- > 0;) {
      cuts[part] = first_at_or_after(cost_before(cuts[part + 1]) - limit);
    }
    return cuts;
  }

  /// What the dearest part must cost, if `at_least` is too little.
  double least_limit(std::int64_t parts, double at_least) const {
    const auto fits = [&](double limit) {
      return cost_before(earliest_cuts(parts, limit).front()) <= 0;
    };
    if (fits(at_least)) return at_least;
    double low = at_least;
    double high = at_least + *std::max_element(full_chunk_cost_.begin(), full_chunk_cost_.end());
    constexpr int kHalvings = 20;
    for (int i = 0; i < kHalvings; ++i) {
      const double middle = (low + high) / 2;
      (fits(middle) ? high : low) = middle;
    }
    return high;
  }

  Place first_at_or_after(double position) const {
    const Place place = last_at_or_before(position);
    return cost_before(place) >= position ? place : next(place);
  }

  Place last_at_or_before(double position) const {
    if (position >= total()) return end();
    const auto after = std::upper_bound(cost_before_.begin(), cost_before_.end() - 1, position);
    const std::int64_t request = std::max<std::int64_t>(0, after - cost_before_.begin() - 1);
    const std::int64_t chunks = batch_.num_chunks(batch_.requests[request]);
    if (chunks == 0) return {request, 0};
    const double inside = (position - cost_before_[request]) / full_chunk_cost_[request];
    const auto chunk = static_cast<std::int64_t>(std::max(0.0, std::floor(inside)));
    return {request, std::min(chunk, chunks - 1)};
  }

  /// The place from `first` to `last` where the largest subtree begins; the begin of a request is
  /// the largest of all, that next to `ideal` if there are several.
  Place largest_between(Place first, Place last, double ideal) const {
    const std::int64_t first_begin = first.request + (first.chunk == 0 ? 0 : 1);
    if (first_begin > last.request) {
      // Of the numbers from a to b the one with most zeros at its end is b without what follows the
      // highest bit in which b differs from a - 1.
      const auto chunk = static_cast<std::uint64_t>(last.chunk);
      const auto unit = std::bit_floor(static_cast<std::uint64_t>(first.chunk - 1) ^ chunk);
      return {last.request, static_cast<std::int64_t>(chunk / unit * unit)};
    }
    const auto from = cost_before_.begin() + first_begin;
    const auto to = cost_before_.begin() + last.request + 1;
    auto nearest = std::lower_bound(from, to, ideal);
    if (nearest == to || (nearest != from && ideal - nearest[-1] <= *nearest - ideal)) --nearest;
    return {nearest - cost_before_.begin(), 0};
  }

  Place begin() const { return {0, 0}; }
  Place end() const { return {num_requests(), 0}; }

 private:
  std::int64_t num_requests() const { return static_cast<std::int64_t>(batch_.requests.size()); }

  Place next(Place place) const {
    if (place.chunk + 1 < batch_.num_chunks(batch_.requests[place.request])) {
      return {place.request, place.chunk + 1};
    }
    return {place.request + 1, 0};
  }

  const Batch& batch_;
  std::vector<double> cost_before_;      // [requests + 1]
  std::vector<double> full_chunk_cost_;  // [requests + 1], as end() is a place too
};

}  // namespace

std::vector<Place> flat_cut(const Batch& batch, std::int64_t heads, std::int64_t parts,
                            const CostModel& cost) {
  const FlatChunks flat(batch, heads, cost);
  const double share = flat.total() / static_cast<double>(parts);
  const double limit = flat.least_limit(parts, share * kTolerance);
  const std::vector<Place> earliest = flat.earliest_cuts(parts, limit);
  std::vector<Place> cuts{flat.begin()};
  for (std::int64_t part = 1; part < parts; ++part) {
    const double ideal = share * static_cast<double>(part);
    const Place before = std::max(earliest[part], cuts.back());
    const Place last =
        std::max(before, flat.last_at_or_before(flat.cost_before(cuts.back()) + limit));
    // Further to the left, the parts to the right would all cost as much as they may: no choice.
    const Place first = std::clamp(flat.first_at_or_after(ideal - (limit - share)), before, last);
    cuts.push_back(flat.largest_between(first, last, ideal));
  }
  cuts.push_back(flat.end());
  return cuts;
}

}  // namespace mla
