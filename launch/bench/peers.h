#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/bench/contender.h"
#include "launch/bench/pool.h"

namespace mla::launch::bench {

/// What the library baselines of all points of one dtype share.
class Peers {
 public:
  /// `pool` must outlive it. Copies of the cache take at most `max_cache_bytes`.
  Peers(const Pool& pool, std::int64_t max_cache_bytes, bool hot)
      : pool_(pool), max_cache_bytes_(max_cache_bytes), hot_(hot) {}

  /// The baselines that this build has for a point. Lines about those that cannot do it go to
  /// `notes`. They are valid until the next call.
  std::vector<std::unique_ptr<Contender>> contenders(const Workload& workload,
                                                     std::vector<std::string>& notes);

 private:
  /// The first `elements` of the pool in fp32.
  const float* widened(std::int64_t elements);

  const Pool& pool_;
  std::int64_t max_cache_bytes_;
  bool hot_;
  proto::MappedMemory widened_;
  std::int64_t widened_elements_ = 0;
};

/// A line that says which libraries this build lacks and how to get them; empty if it has all.
std::string missing_peers();

/// "OpenBLAS 0.3.21", "oneDNN 3.13.0": those that this build has.
std::vector<std::string> peer_versions();

}  // namespace mla::launch::bench
