#include "launch/job_journals.h"

#include <cstring>
#include <span>
#include <string>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "core/error.h"
#include "dist/activity.h"
#include "kernels/backend.h"
#include "launch/earlier_journals.h"
#include "proto/batch_file.h"
#include "proto/journal.h"
#include "proto/journal_index.h"

namespace mla::launch {
namespace {

/// What the bits of results depend on, beside the input.
std::string settings_of(const Batch& batch, const DecodeOptions& options,
                        std::string_view backend) {
  return fmt::format("backend: {}, combine: {}, chunk_tokens: {}, out_dtype: {}, arithmetic: {}",
                     backend, options.combine, batch.chunk_tokens, name_of(batch.out_dtype),
                     kernels::kArithmeticVersion);
}

template <class Container>
void broadcast(const dist::Communicator& comm, Container& elements) {
  const auto mine = std::as_bytes(std::span(elements));
  std::vector<std::byte> bytes(mine.begin(), mine.end());
  comm.broadcast(bytes);
  elements.resize(bytes.size() / sizeof elements[0]);
  if (!bytes.empty()) std::memcpy(elements.data(), bytes.data(), bytes.size());
}

}  // namespace

JobJournals::JobJournals(const dist::Communicator& comm, const LoadedBatch& loaded,
                         const DecodeOptions& options, std::string_view backend)
    : comm_(comm), loaded_(loaded), options_(options) {
  comm.on_root([&] {
    header_ = {.input_hash = proto::hash_of_input(loaded.batch, options.batch.parent_path()),
               .settings = settings_of(loaded.batch, options, backend)};
    read_earlier_runs();
  });
  run_ = comm.all_gather(run_).front();
  header_.input_hash = comm.all_gather(header_.input_hash).front();
  broadcast(comm, header_.settings);
  broadcast(comm, requests_left_);
}

void JobJournals::read_earlier_runs() {
  const std::vector<proto::JournalFile> files =
      earlier_journals(options_.output, options_.resume, options_.restart);
  run_ = proto::next_run(files);
  const proto::JournalIndex index(loaded_.batch, files, header_);
  for (const std::string& warning : index.warnings()) spdlog::warn("{}", warning);
  for (std::size_t i = 0; i < loaded_.batch.requests.size(); ++i) {
    const auto request = static_cast<std::int64_t>(i);
    if (loaded_.failed.contains(request) || index.is_finished(request)) continue;
    requests_left_.push_back(request);
  }
}

void JobJournals::keep(const std::vector<ResultSlice>& slices) {
  if (failure_) return;
  try {
    append(slices);
  } catch (const Error&) {
    failure_ = std::current_exception();
  }
}

void JobJournals::append(const std::vector<ResultSlice>& slices) {
  if (slices.empty()) return;
  if (!journal_) {
    journal_.emplace(proto::journal_of(options_.output, run_, comm_.rank()).path, header_);
  }
  for (const ResultSlice& slice : slices) journal_->append(proto::encode_slice(slice));
  journal_->sync_when_due();
}

void JobJournals::check() const {
  comm_.together([&] {
    if (failure_) std::rethrow_exception(failure_);
  });
}

void JobJournals::sync() {
  comm_.together([&] {
    if (journal_) journal_->sync();
  });
}

void JobJournals::write_output() const {
  comm_.on_root([&] {
    const proto::ResultFormat format =
        options_.format.empty()       ? proto::result_format_of(options_.output)
        : options_.format == "stream" ? proto::ResultFormat::kStream
                                      : proto::ResultFormat::kSafetensors;
    const Batch& batch = loaded_.batch;
    proto::JournalIndex index(batch, proto::find_journals(options_.output), header_);
    proto::ResultWriter writer(options_.output, format, batch, loaded_.failed);
    for (std::size_t i = 0; i < batch.requests.size(); ++i) {
      const auto request = static_cast<std::int64_t>(i);
      if (!loaded_.failed.contains(request)) writer.append(index.read(request));
      ++dist::activity().calls;  // so that a long merge is not taken for a job that hangs
    }
    writer.commit();
  });
}

void JobJournals::remove() {
  journal_.reset();
  comm_.on_root(
      [&] { proto::remove_journals(proto::find_journals(options_.output), options_.output); });
}

}  // namespace mla::launch
