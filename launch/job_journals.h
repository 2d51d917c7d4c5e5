#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "dist/communicator.h"
#include "launch/decode_job.h"
#include "proto/journal_files.h"
#include "proto/record_log.h"

namespace mla::launch {

/// What a decode has finished, kept in journals beside the output, one per rank and run, until the
/// output is written: an earlier run's, if this one goes on from it, and this one's.
class JobJournals {
 public:
  /// Finds out which requests earlier runs have finished. Collective.
  /// @throws CollectiveError for journals that the options do not allow for, or of another job.
  JobJournals(const dist::Communicator& comm, const LoadedBatch& loaded,
              const DecodeOptions& options, std::string_view backend);

  /// Requests that are still to be decoded, in ascending order.
  const std::vector<std::int64_t>& requests_left() const { return requests_left_; }

  /// Appends results of this rank to its journal, and makes them durable now and then. What fails
  /// is thrown by `check`. Local.
  void keep(const std::vector<ResultSlice>& slices);

  /// Collective. @throws CollectiveError if a rank's journal has failed.
  void check() const;

  /// Makes all that was kept durable. Collective. @throws CollectiveError.
  void sync();

  /// Writes the output from the journals, on rank 0. Collective. @throws CollectiveError.
  void write_output() const;

  /// Removes them, on rank 0, once the output is there. Collective. @throws CollectiveError.
  void remove();

 private:
  void read_earlier_runs();
  void append(const std::vector<ResultSlice>& slices);

  const dist::Communicator& comm_;
  const LoadedBatch& loaded_;
  const DecodeOptions& options_;
  proto::JournalHeader header_;
  int run_ = 1;
  std::vector<std::int64_t> requests_left_;
  std::optional<proto::RecordWriter> journal_;  // made for the first result
  std::exception_ptr failure_;
};

}  // namespace mla::launch
