// Every system call of a job's files fails, once and from then on: the job ends with one clear
// error, what was durable is still there, and the next run completes the output.

#include <cerrno>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/file_calls.h"
#include "proto/journal_index.h"
#include "proto/result_file.h"
#include "tests/proto/results.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

constexpr int kNone = -1;

struct Fault {
  int at = kNone;  ///< number of the call that fails
  bool sticky = false;
  int os_error = 0;  ///< 0: reads and writes do half of their work
};

/// Counts the calls on files, of which some fail.
class FaultyCalls {
 public:
  explicit FaultyCalls(const Fault& fault)
      : injected_([this, fault](const char* call, std::size_t& bytes) {
          const auto number = static_cast<int>(names_.size());
          names_.emplace_back(call);
          if (fault.at == kNone || number < fault.at) return 0;
          if (number > fault.at && !fault.sticky) return 0;
          if (fault.os_error == 0) bytes = (bytes + 1) / 2;
          return fault.os_error;
        }) {}
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
  file_calls::InjectedFault injected_;
};

class FileFaults : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path output(const TempDir& folder) const { return folder / GetParam(); }

  /// What a run of a job does with files: goes on from the journals of earlier ones, keeps what was
  /// missing, writes the output, cleans up. Results before `durable_` are safe.
  void run(const std::filesystem::path& output) {
    std::vector<JournalFile> files = find_journals(output);
    const JournalIndex earlier(batch_, files, kJournalHeader);
    RecordWriter journal(journal_of(output, next_run(files), 0).path, kJournalHeader);
    for (std::int64_t request = 0; request < kRequests; ++request) {
      if (earlier.is_finished(request)) continue;
      journal.append(encode_slice(journaled_slice(batch_, request, {0, 4})));
      if (request % 2 == 0) continue;
      journal.sync();
      durable_ = request + 1;
    }
    files = find_journals(output);
    JournalIndex all(batch_, files, kJournalHeader);
    ResultWriter writer(output, result_format_of(output), batch_);
    for (std::int64_t request = 0; request < kRequests; ++request) writer.append(all.read(request));
    writer.commit();
    is_written_ = true;
    remove_journals(files, output);
  }

  /// The error of a run in which `fault` happens; "" if it completes.
  std::string run_with(const Fault& fault, const std::filesystem::path& output,
                       std::vector<std::string>& calls) {
    durable_ = 0;
    is_written_ = false;
    FaultyCalls faulty(fault);
    std::string error;
    try {
      run(output);
    } catch (const Error& e) {
      EXPECT_EQ(e.exit_code(), ExitCode::kIo) << e.what();
      error = e.what();
    }
    calls = faulty.names();
    return error;
  }

  static constexpr std::int64_t kRequests = 4;
  const Batch batch_ = journaled_batch(kRequests);
  std::int64_t durable_ = 0;
  bool is_written_ = false;
};

TEST_P(FileFaults, LoseNothingWhateverCallFails) {
  std::vector<std::string> sites;
  std::vector<std::byte> expected;
  {
    const TempDir folder;
    EXPECT_EQ(run_with({}, output(folder), sites), "");
    expected = read_bytes(output(folder));
  }
  for (const char* name : {"open", "pread", "write", "fdatasync", "fsync", "rename", "unlink"}) {
    EXPECT_THAT(sites, testing::Contains(name));
  }
  for (int at = 0; at < static_cast<int>(sites.size()); ++at) {
    for (const bool sticky : {false, true}) {
      for (const int os_error : {ENOSPC, EIO, 0}) {
        SCOPED_TRACE(sites[at] + ", call " + std::to_string(at) + (sticky ? " and later: " : ": ") +
                     (os_error == 0 ? "half done" : std::strerror(os_error)));
        const TempDir folder;
        std::vector<std::string> calls;
        const std::string error = run_with({at, sticky, os_error}, output(folder), calls);
        EXPECT_EQ(error.empty(), os_error == 0) << error;
        if (os_error != 0) {
          EXPECT_THAT(error, testing::EndsWith(std::strerror(os_error)));
        }
        if (!is_written_) {
          const JournalIndex left(batch_, find_journals(output(folder)), kJournalHeader);
          for (std::int64_t r = 0; r < durable_; ++r) EXPECT_TRUE(left.is_finished(r)) << r;
        }
        EXPECT_EQ(run_with({}, output(folder), calls), "");
        EXPECT_EQ(read_bytes(output(folder)), expected);
        EXPECT_THAT(folder.files(), testing::ElementsAre(GetParam()));
      }
    }
  }
}

TEST_P(FileFaults, HitARecordThatIsTakenBack) {
  const TempDir folder;
  RecordWriter journal(folder / "j", kJournalHeader);
  journal.append(encode_slice(journaled_slice(batch_, 0, {0, 4})));
  for (const bool sticky : {false, true}) {
    FaultyCalls faulty({0, sticky, ENOSPC});
    EXPECT_THROW(journal.append(encode_slice(journaled_slice(batch_, 1, {0, 4}))), IoError);
    EXPECT_THAT(faulty.names(), testing::ElementsAre("write", "ftruncate"));
  }
  journal.append(encode_slice(journaled_slice(batch_, 2, {0, 4})));
  RecordReader reader(folder / "j");
  for (const std::int64_t request : {0, 2}) {
    EXPECT_EQ(reader.next(), encode_slice(journaled_slice(batch_, request, {0, 4})));
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, FileFaults, testing::Values("out.results", "out.safetensors"),
                         [](const auto& form) {
                           return std::string(form.param) == "out.results" ? "Stream"
                                                                           : "Safetensors";
                         });

}  // namespace
}  // namespace mla::proto
