#include "dist/kernel_speed.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/cost_model.h"
#include "core/median.h"
#include "core/partition.h"
#include "core/result_builder.h"
#include "dist/made_up_tensors.h"
#include "dist/stopwatch.h"

namespace mla::dist {
namespace {

constexpr int kRepeats = 7;
constexpr double kEnoughSeconds = 0.01;  // for one measurement, beside its first run
constexpr std::int64_t kMostChunks = 4096;
constexpr double kMostTimesMean =
    4;  // that rows may add faster than they are computed on the whole

/// One request for each thread, together as long as the batch, as far as made-up caches last.
Batch probed_batch(const Batch& like, int threads) {
  Batch batch = sizes_of(like);
  batch.page_block_size = batch.chunk_tokens = std::min(like.chunk_tokens, kDefaultChunkTokens);
  const std::int64_t row_bytes = like.shape.h_kv * like.shape.d_qk * size_of(like.dtype);
  std::int64_t bytes = 0;
  for (const Request& r : like.requests) bytes += r.context_len * row_bytes;
  const std::int64_t chunks = std::clamp<std::int64_t>(
      std::min(bytes, MadeUpTensors::kMostCacheBytes) / (threads * batch.chunk_tokens * row_bytes),
      1, kMostChunks);
  Request request;
  request.context_len = chunks * batch.chunk_tokens;
  batch.requests.assign(static_cast<std::size_t>(threads), request);
  return batch;
}

/// Of all chunks of all requests.
std::vector<Piece> pieces_of(const Batch& batch, std::int64_t heads, std::int64_t chunks) {
  std::vector<Piece> pieces;
  for (std::int64_t r = 0; r < std::ssize(batch.requests); ++r) {
    pieces.push_back({r, {0, heads}, {0, chunks}});
  }
  return pieces;
}

class KernelProbe {
 public:
  KernelProbe(const Batch& like, const kernels::Backend& backend,
              const kernels::DecoderOptions& options)
      : backend_(backend),
        options_(options),
        batch_(probed_batch(like, options.threads)),
        chunks_(batch_.num_chunks(batch_.requests[0])),
        tensors_(batch_, pieces_of(batch_, like.shape.h_q, chunks_)) {}

  /// Bytes of cache that a chunk of each request reads.
  double chunk_bytes() const {
    return num_requests() * static_cast<double>(batch_.page_elements() * size_of(batch_.dtype));
  }

  /// What a chunk of each request costs for `heads` heads by a model.
  double chunk_cost(std::int64_t heads, const CostModel& cost) const {
    return num_requests() * cost.chunk(batch_, batch_.requests[0], 0, heads);
  }

  /// Of computing `heads` heads of a chunk of each request: as many chunks as fill the time for a
  /// measurement, of those that are there. @throws what make_decoder throws
  double chunk_seconds(std::int64_t heads) const {
    const double guess = seconds(heads, 1);
    const auto chunks = static_cast<std::int64_t>(
        std::clamp(kEnoughSeconds / guess, 1.0, static_cast<double>(chunks_)));
    if (chunks == 1) return guess;
    return seconds(heads, chunks) / static_cast<double>(chunks);
  }

 private:
  double num_requests() const { return static_cast<double>(batch_.requests.size()); }

  double seconds(std::int64_t heads, std::int64_t chunks) const {
    const std::vector<Piece> pieces = pieces_of(batch_, heads, chunks);
    std::vector<Ownership> owned;
    for (const Piece& piece : pieces) {
      if (chunks == chunks_) owned.push_back({piece.request, piece.heads, 0});
    }
    const auto decoder = backend_.make_decoder(batch_, pieces, tensors_.inputs(), options_);
    ResultBuilder results(batch_, owned);
    decoder->run(results);
    std::vector<double> times;
    const Stopwatch all;
    do {
      const Stopwatch watch;
      decoder->run(results);
      times.push_back(watch.seconds());
    } while (times.size() < kRepeats && all.seconds() < kEnoughSeconds);
    return median(std::move(times));
  }

  const kernels::Backend& backend_;
  kernels::DecoderOptions options_;
  Batch batch_;
  std::int64_t chunks_;  // of each request
  MadeUpTensors tensors_;
};

}  // namespace

// What a chunk takes is a straight line over its rows: what streaming the cache takes, and so much
// for each row. All rows and a vector of them find it; a lone row tells whether those that it lacks
// cost as much.
KernelSpeed measure_kernels(const Batch& like, const kernels::Backend& backend,
                            const kernels::DecoderOptions& options) {
  const KernelProbe probe(like, backend, options);
  const MlaShape& shape = like.shape;
  const std::int64_t all = shape.h_q;
  const std::int64_t few = std::min(kRowsPerVector, shape.heads_per_kv());
  const double all_seconds = probe.chunk_seconds(all);
  CostModel cost;
  KernelSpeed speed{.flop_per_second = probe.chunk_cost(all, cost) / all_seconds};
  if (shape.h_kv > 1) return speed;
  if (few < all) {
    const double few_seconds = probe.chunk_seconds(few);
    const CostModel products{.flop_per_kv_byte = 0};
    const double all_flop = probe.chunk_cost(all, products);
    const double few_flop = probe.chunk_cost(few, products);
    const double mean = all_flop / all_seconds;
    const double seconds = std::max(all_seconds - few_seconds, 1e-9);
    const double rate = std::clamp((all_flop - few_flop) / seconds, mean, kMostTimesMean * mean);
    speed.flop_per_second = rate;
    speed.seconds_per_kv_byte = std::max(0.0, few_seconds - few_flop / rate) / probe.chunk_bytes();
    cost.flop_per_kv_byte = speed.seconds_per_kv_byte * rate;
  }
  if (few == 1) return speed;
  const double lone = probe.chunk_seconds(1) * speed.flop_per_second;
  const double unpadded = probe.chunk_cost(1, cost);
  cost.padded_values = 1;
  speed.padded_values =
      std::clamp((lone - unpadded) / (probe.chunk_cost(1, cost) - unpadded), 0.0, 1.0);
  return speed;
}

}  // namespace mla::dist
