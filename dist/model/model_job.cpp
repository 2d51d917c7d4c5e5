#include "dist/model/model_job.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "core/range.h"

namespace mla::dist {
namespace {

/// Numbers and vectors of them, one after the other. Both ends are this program.
class Packer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    put_all(std::span(&value, 1));
  }
  template <class T>
  void put_vector(std::span<const T> values) {
    put(std::ssize(values));
    put_all(values);
  }
  std::vector<std::byte> bytes;

 private:
  template <class T>
  void put_all(std::span<const T> values) {
    const auto from = std::as_bytes(values);
    bytes.insert(bytes.end(), from.begin(), from.end());
  }
};

class Unpacker {
 public:
  explicit Unpacker(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  T get() {
    T value;
    get_all(std::span(&value, 1));
    return value;
  }
  template <class T>
  std::vector<T> get_vector() {
    std::vector<T> values(static_cast<std::size_t>(get<std::ptrdiff_t>()));
    get_all(std::span(values));
    return values;
  }
  bool empty() const { return rest_.empty(); }

 private:
  template <class T>
  void get_all(std::span<T> values) {
    const auto to = std::as_writable_bytes(values);
    std::copy_n(rest_.begin(), to.size(), to.begin());
    rest_ = rest_.subspan(to.size());
  }
  std::span<const std::byte> rest_;
};

/// A step as it travels; owns what a StepBatch points to.
struct Order {
  bool stop = false;
  std::vector<std::vector<std::int32_t>> lists;  // tokens and pages of each sequence
  StepBatch batch;
  std::vector<RowRequest> rows;
};

std::vector<std::byte> pack(const StepBatch& batch, std::span<const RowRequest> rows) {
  Packer packer;
  packer.put(std::ssize(batch.sequences));
  for (const StepSequence& sequence : batch.sequences) {
    packer.put(sequence.group);
    packer.put(sequence.start);
    packer.put(sequence.prefill_end);
    packer.put(sequence.logits);
    packer.put_vector(sequence.tokens);
    packer.put_vector(sequence.pages);
  }
  packer.put(std::ssize(rows));
  for (const RowRequest& row : rows) {
    packer.put(row.sampling);
    packer.put(row.counter);
    packer.put_vector(std::span(row.banned));
    packer.put(row.given);
    packer.put(row.top_logprobs);
  }
  return packer.bytes;
}

Order unpack(std::span<const std::byte> bytes) {
  Order order;
  order.stop = bytes.empty();
  if (order.stop) return order;
  Unpacker unpacker(bytes);
  const auto sequences = unpacker.get<std::ptrdiff_t>();
  order.lists.reserve(static_cast<std::size_t>(2 * sequences));  // spans point into it
  for (std::ptrdiff_t i = 0; i < sequences; ++i) {
    StepSequence& sequence = order.batch.sequences.emplace_back();
    sequence.group = unpacker.get<int>();
    sequence.start = unpacker.get<std::int64_t>();
    sequence.prefill_end = unpacker.get<std::int64_t>();
    sequence.logits = unpacker.get<WantLogits>();
    sequence.tokens = order.lists.emplace_back(unpacker.get_vector<std::int32_t>());
    sequence.pages = order.lists.emplace_back(unpacker.get_vector<std::int32_t>());
  }
  const auto rows = unpacker.get<std::ptrdiff_t>();
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    RowRequest& row = order.rows.emplace_back();
    row.sampling = unpacker.get<SamplingParams>();
    row.counter = unpacker.get<SampleCounter>();
    row.banned = unpacker.get_vector<std::int32_t>();
    row.given = unpacker.get<std::optional<std::int32_t>>();
    row.top_logprobs = unpacker.get<std::optional<std::int64_t>>();
  }
  return order;
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
    const Order order = unpack(bytes);
    if (order.stop) return;
    try {
      compute(order.batch, order.rows);
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
  Packer packer;
  for (const RowChoice& choice : choose_own(rows)) {
    packer.put(choice.token);
    packer.put(choice.failed);
    packer.put_vector(std::span(choice.logprobs));
  }
  std::vector<RowChoice> choices;
  for (const std::vector<std::byte>& bytes : world_.gather(packer.bytes)) {
    Unpacker unpacker(bytes);
    while (!unpacker.empty()) {
      RowChoice& choice = choices.emplace_back();
      choice.token = unpacker.get<std::int32_t>();
      choice.failed = unpacker.get<bool>();
      choice.logprobs = unpacker.get_vector<TokenLogprob>();
    }
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
