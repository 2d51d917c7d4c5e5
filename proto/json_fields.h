#pragma once

#include <set>
#include <string>
#include <string_view>

#include "proto/json_reader.h"

namespace mla::proto {

// For .cpp files of this folder alone: the JSON library makes for slow compiling.

/// The members of a JSON object, of which it remembers those that were asked for, so that others,
/// which nobody knows, can be refused.
class Fields {
 public:
  /// @throws FormatError if `object` is none.
  explicit Fields(const JsonField& object);

  /// A member; null if there is none.
  JsonField operator[](std::string_view key);

  /// The member must be absent or have this value: another would mean a computation that is not
  /// done here. @throws FormatError.
  void expect(std::string_view key, const nlohmann::json& value);

  /// Members that do not change what is computed, with spaces between their names.
  void ignore(const std::string& keys);

  /// @throws FormatError naming the first member that nobody asked for.
  void refuse_others() const;

 private:
  JsonField member(std::string_view key) const;

  JsonField object_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace mla::proto
