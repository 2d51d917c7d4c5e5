#include "proto/journal_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/proto/results.h"
#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class JournalSet : public testing::Test {
 protected:
  void write(int run, int rank, const std::vector<ResultSlice>& slices,
             const JournalHeader& header = kJournalHeader) {
    RecordWriter writer(journal_of(output_, run, rank).path, header);
    for (const ResultSlice& slice : slices) writer.append(encode_slice(slice));
  }
  ResultSlice slice(std::int64_t request, Range heads) const {
    return journaled_slice(batch_, request, heads);
  }
  JournalIndex index() const { return {batch_, find_journals(output_), kJournalHeader}; }
  std::string index_error() const {
    return error_of([&] { index(); });
  }

  TempDir folder_;
  Batch batch_ = journaled_batch(3);
  std::filesystem::path output_ = folder_ / "out.results";
};

TEST_F(JournalSet, IsFoundByNameAlone) {
  write(2, 1, {});
  write(2, 0, {});
  write(1, 10, {});
  for (const char* name :
       {"other.run-1.rank-0.journal", "out.results.run-1.rank-.journal",
        "out.results.run-1.rank-0.journal.old", "out.results.run--1.rank-0.journal",
        "out.results.manifest.json", "out.results"}) {
    write_file(folder_ / name, std::string("x"));
  }
  std::vector<std::pair<int, int>> found;
  for (const JournalFile& file : find_journals(output_)) found.emplace_back(file.run, file.rank);
  EXPECT_THAT(found, ElementsAre(std::pair(1, 10), std::pair(2, 0), std::pair(2, 1)));
  EXPECT_EQ(next_run(find_journals(output_)), 3);
  EXPECT_EQ(next_run({}), 1);
}

TEST_F(JournalSet, HasARequestOnlyWithAllItsHeads) {
  write(1, 0, {slice(2, {2, 4}), slice(0, {0, 4})});
  write(1, 1, {slice(1, {0, 2}), slice(2, {0, 2})});
  JournalIndex some = index();
  EXPECT_TRUE(some.is_finished(0));
  EXPECT_FALSE(some.is_finished(1));
  EXPECT_TRUE(some.is_finished(2));
  EXPECT_EQ(some.read(0), journaled_result(batch_, 0));
  EXPECT_EQ(some.read(2), journaled_result(batch_, 2));
  EXPECT_EQ(exit_code_of([&] { some.read(1); }), ExitCode::kIo);
}

TEST_F(JournalSet, PutsTogetherHeadsThatRunsCutInOtherWays) {
  write(1, 0, {slice(1, {0, 3})});
  write(2, 0, {slice(1, {0, 2})});
  write(2, 1, {slice(1, {2, 4})});
  EXPECT_EQ(index().read(1), journaled_result(batch_, 1));
}

TEST_F(JournalSet, TakesOneOfEqualResults) {
  write(1, 0, {slice(1, {0, 4})});
  write(2, 0, {slice(1, {0, 4}), slice(1, {0, 4})});
  EXPECT_EQ(index().read(1), journaled_result(batch_, 1));
}

TEST_F(JournalSet, MissesHeadsBetweenOthers) {
  write(1, 0, {slice(0, {0, 1}), slice(0, {2, 4})});
  EXPECT_FALSE(index().is_finished(0));
}

TEST_F(JournalSet, NamesWhatDiffersFromTheJob) {
  write(1, 0, {}, {.input_hash = 11, .settings = "backend: z, combine: b"});
  EXPECT_THAT(index_error(), HasSubstr("of a job with backend: z; expected backend: a"));
  remove_journals(find_journals(output_), output_);
  write(1, 0, {}, {.input_hash = 12, .settings = kJournalHeader.settings});
  EXPECT_THAT(index_error(), HasSubstr("of another batch, or of files that have changed since"));
  remove_journals(find_journals(output_), output_);
  write(1, 0, {}, {.input_hash = 11, .settings = "backend: a"});
  EXPECT_THAT(index_error(), HasSubstr("of a job with backend: a; expected backend: a, combine"));
}

TEST_F(JournalSet, RefusesRecordsThatDoNotFitTheBatch) {
  const Batch larger = journaled_batch(4);
  ResultSlice short_one = slice(0, {0, 4});
  short_one.lse.pop_back();
  for (const ResultSlice& wrong :
       {journaled_slice(larger, 3, {0, 4}), short_one, ResultSlice{.request = -1},
        ResultSlice{.request = 0, .heads = {3, 5}}, ResultSlice{.request = 0, .heads = {2, 2}}}) {
    write(1, 0, {wrong});
    EXPECT_THAT(index_error(), HasSubstr("expected requests, heads and sizes of the batch"));
    remove_journals(find_journals(output_), output_);
  }
}

TEST_F(JournalSet, TellsOfTornTails) {
  write(1, 0, {slice(0, {0, 4}), slice(1, {0, 4})});
  write(1, 1, {slice(2, {0, 4})});
  const auto path = journal_of(output_, 1, 0).path;
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  JournalIndex torn = index();
  EXPECT_TRUE(torn.is_finished(0));
  EXPECT_FALSE(torn.is_finished(1));
  EXPECT_TRUE(torn.is_finished(2));
  EXPECT_THAT(torn.warnings(), ElementsAre(HasSubstr("rank-0.journal': its last")));
}

TEST_F(JournalSet, IsReadThroughFewDescriptors) {
  const int ranks = 1000;
  batch_ = journaled_batch(ranks);
  for (int rank = 0; rank < ranks; ++rank) write(1, rank, {slice(ranks - 1 - rank, {0, 4})});
  rlimit usual{};
  ::getrlimit(RLIMIT_NOFILE, &usual);
  const rlimit few{100, usual.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &few);
  JournalIndex many = index();
  for (std::int64_t request = 0; request < ranks; ++request) {
    EXPECT_EQ(many.read(request), journaled_result(batch_, request));
  }
  ::setrlimit(RLIMIT_NOFILE, &usual);
}

TEST_F(JournalSet, GoesAwayWithWhatKilledWritersLeft) {
  write(1, 0, {});
  write(3, 7, {});
  const std::vector<std::string> stay{"out.results", "out.results.tmp", "other.tmp12",
                                      "out.results.manifest.json", "out.results.tmp12x"};
  for (const std::string& name : stay) write_file(folder_ / name, std::string("x"));
  write_file(folder_ / "out.results.tmp12", std::string("x"));
  write_file(folder_ / "out.results.manifest.json.tmp12", std::string("x"));
  remove_journals(find_journals(output_), output_);
  EXPECT_THAT(folder_.files(), testing::UnorderedElementsAreArray(stay));
  EXPECT_THAT(find_journals(output_), IsEmpty());
}

TEST_F(JournalSet, NeedsAFolder) {
  EXPECT_EQ(exit_code_of([&] { find_journals(folder_ / "none/out"); }), ExitCode::kIo);
}

}  // namespace
}  // namespace mla::proto
