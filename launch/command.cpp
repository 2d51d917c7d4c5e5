#include "launch/command.h"

#include <string>

#include <fmt/format.h>

namespace mla::launch {

CLI::Validator within(double least, double most) {
  const CLI::Range range(least, most);
  const std::string words = fmt::format("{} to {}", least, most);
  const auto check = [=](std::string& text) {
    return range(text).empty() ? "" : "Value " + text + " not in range " + words;
  };
  return {check, words};
}

}  // namespace mla::launch
