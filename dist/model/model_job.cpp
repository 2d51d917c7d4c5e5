#include "dist/model/model_job.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "core/range.h"

namespace mla::dist {
namespace {

std::size_t padded(std::size_t bytes) {
  return static_cast<std::size_t>(round_up(static_cast<std::int64_t>(bytes), 8));
}

/// Values, spans and vectors of them one after the other, each from a multiple of 8 bytes on. Both
/// ends are this program.
class Writer {
 public:
  template <class... T>
  void operator()(const T&... values) {
    (put(values), ...);
  }
  std::vector<std::byte> bytes;

 private:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    put_bytes(std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  void put(const std::span<const T>& values) {
    put(values.size());
    put_bytes(std::as_bytes(values));
  }
  template <class T>
  void put(const std::vector<T>& values) {
    put(std::span<const T>(values));
  }
  void put_bytes(std::span<const std::byte> from) {
    bytes.insert(bytes.end(), from.begin(), from.end());
    bytes.resize(padded(bytes.size()));
  }
};

/// Spans that it reads point into the bytes.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class... T>
  void operator()(T&... values) {
    (get(values), ...);
  }
  bool empty() const { return rest_.empty(); }

 private:
  template <class T>
  void get(T& value) {
    std::memcpy(&value, take(sizeof value), sizeof value);
  }
  template <class T>
  void get(std::span<const T>& values) {
    std::size_t count = 0;
    get(count);
    values = {reinterpret_cast<const T*>(take(count * sizeof(T))), count};
  }
  template <class T>
  void get(std::vector<T>& values) {
    std::span<const T> from;
    get(from);
    values.assign(from.begin(), from.end());
  }
  const std::byte* take(std::size_t count) {
    const std::byte* const from = rest_.data();
    rest_ = rest_.subspan(padded(count));
    return from;
  }

  std::span<const std::byte> rest_;
};

/// What travels of a step, to a Writer or from a Reader.
template <class Io>
void travel(Io& io, auto& sequences, auto& rows) {
  for (auto& s : sequences) io(s.group, s.start, s.prefill_end, s.logits, s.tokens, s.pages);
  for (auto& r : rows) io(r.sampling, r.counter, r.banned, r.given, r.top_logprobs);
}
template <class Io>
void travel(Io& io, auto& choice) {
  io(choice.token, choice.failed, choice.logprobs);
}

std::vector<std::byte> pack(const StepBatch& batch, std::span<const RowRequest> rows) {
  Writer out;
  out(batch.sequences.size(), rows.size());
  travel(out, batch.sequences, rows);
  return out.bytes;
}

}  // namespace

void ModelJob::run(const std::function<void()>& work) {
  std::exception_ptr failure;
  if (world_.rank() == 0) {
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    stop();
  } else {
    follow();
  }
  world_.on_root([&] {
    if (failure) std::rethrow_exception(failure);
  });
}

std::vector<RowChoice> ModelJob::step(const StepBatch& batch, std::span<const RowRequest> rows) {
  std::vector<std::byte> bytes = pack(batch, rows);
  world_.broadcast(bytes);
  return compute(batch, rows);
}

void ModelJob::stop() {
  std::vector<std::byte> nothing;
  world_.broadcast(nothing);
}

void ModelJob::follow() {
  while (true) {
    std::vector<std::byte> bytes;
    world_.broadcast(bytes);
    if (bytes.empty()) return;
    Reader in(bytes);
    std::size_t sequences = 0;
    std::size_t num_rows = 0;
    in(sequences, num_rows);
    StepBatch batch{std::vector<StepSequence>(sequences)};
    std::vector<RowRequest> rows(num_rows);
    travel(in, batch.sequences, rows);
    try {
      compute(batch, rows);
    } catch (const InvalidArgument&) {
      // Rank 0 throws the same, and decides what to do about it.
    }
  }
}

std::vector<RowChoice> ModelJob::compute(const StepBatch& batch, std::span<const RowRequest> rows) {
  model_.step(batch);
  if (std::all_of(rows.begin(), rows.end(), [](const RowRequest& row) { return row.is_plain(); })) {
    std::vector<RowChoice> choices;
    for (const LargestLogit& largest : model_.largest()) {
      choices.push_back(
          {.token = largest.id, .logprobs = {}, .failed = !std::isfinite(largest.logit)});
    }
    return choices;
  }
  Writer out;
  for (const RowChoice& choice : choose_own(rows)) travel(out, choice);
  std::vector<RowChoice> choices;
  for (const std::vector<std::byte>& bytes : world_.gather(out.bytes)) {
    for (Reader in(bytes); !in.empty();) travel(in, choices.emplace_back());
  }
  return choices;
}

/// The choices for the rows whose logits this rank has.
std::vector<RowChoice> ModelJob::choose_own(std::span<const RowRequest> rows) {
  const std::span<const float> logits = model_.logits();
  const Range own = even_part(std::ssize(rows), world_.size(), world_.rank());
  const auto vocab = own.empty() ? 0 : logits.size() / static_cast<std::size_t>(own.size());
  std::vector<RowChoice> choices;
  for (std::int64_t r = own.begin; r < own.end; ++r) {
    choices.push_back(choose(rows[r], logits.subspan((r - own.begin) * vocab, vocab)));
  }
  return choices;
}

/// The logits without those of banned tokens.
std::span<const float> ModelJob::allowed(const RowRequest& row, std::span<const float> logits) {
  if (row.banned.empty()) return logits;
  allowed_.assign(logits.begin(), logits.end());
  for (const std::int32_t token : row.banned) {
    allowed_[token] = -std::numeric_limits<float>::infinity();
  }
  return allowed_;
}

RowChoice ModelJob::choose(const RowRequest& row, std::span<const float> logits) {
  RowChoice choice;
  try {
    choice.token =
        row.given ? *row.given : sampler_.sample(allowed(row, logits), row.sampling, row.counter);
    if (row.top_logprobs) choice.logprobs = token_logprobs(logits, choice.token, *row.top_logprobs);
  } catch (const FormatError&) {
    choice.failed = true;
  }
  return choice;
}

}  // namespace mla::dist
