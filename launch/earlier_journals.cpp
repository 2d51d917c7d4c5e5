#include "launch/earlier_journals.h"

#include "core/error.h"
#include "proto/record_log.h"

namespace mla::launch {

std::vector<proto::JournalFile> earlier_journals(const std::filesystem::path& output, bool resume,
                                                 bool restart) {
  std::vector<proto::JournalFile> files = proto::find_journals(output);
  if (restart) {
    proto::remove_journals(files, output);
    return {};
  }
  if (!files.empty() && !resume) {
    throw InvalidArgument(proto::journal_name(files.front().path),
                          "left by an earlier run that did not finish",
                          "--resume to go on from it, or --restart to discard it");
  }
  return files;
}

}  // namespace mla::launch
