#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/backend.h"

namespace mla::kernels {
namespace {

using testing::HasSubstr;

TEST(Registry, ListsTheFastestBackendFirst) {
  std::vector<std::string_view> names;
  for (const Backend* backend : backends()) names.push_back(backend->name());
  EXPECT_THAT(names, testing::ElementsAre("sm90", "simt", "amx", "avx512", "avx512-fp32", "avx2",
                                          "portable", "reference"));
}

TEST(Registry, AutoIsTheFirstUsableBackend) {
  for (const Backend* backend : backends()) {
    if (!backend->why_unavailable().empty()) continue;
    EXPECT_EQ(find_backend("auto").name(), backend->name());
    return;
  }
  FAIL() << "no backend is usable";
}

TEST(Registry, FindsEveryUsableBackendByName) {
  for (const Backend* backend : backends()) {
    if (backend->why_unavailable().empty()) {
      EXPECT_EQ(&find_backend(backend->name()), backend);
    } else {
      EXPECT_THROW(find_backend(backend->name()), Unsupported);
    }
  }
}

TEST(Registry, AnUnknownNameIsAnErrorThatListsTheChoices) {
  try {
    find_backend("cuda12");
    FAIL() << "accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("cuda12"));
    EXPECT_THAT(error.what(), HasSubstr("amx, avx512, avx512-fp32, avx2, portable, reference"));
  }
}

}  // namespace
}  // namespace mla::kernels
