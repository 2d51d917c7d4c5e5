#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/error.h"

// Reading JSON with errors that name the field. Only for .cpp files of this folder: the library's
// header takes long to compile.

namespace mla::proto {

/// A value as an error shows it: on one line, and not too long.
std::string shown(const nlohmann::json& value);

/// What the library says of a text that it cannot parse, without its own numbers of errors.
std::string reason_of(const nlohmann::json::exception& error);

/// Whether an object may have a key more than once, of which the last counts.
enum class RepeatedKeys { kAllowed, kRefused };

/// Parses one JSON value. @throws FormatError, naming `name`, for wrong syntax, text that is not
/// UTF-8, nesting deeper than `max_depth`, or a key that is refused.
nlohmann::json parse_json(std::string_view text, const std::string& name, int max_depth,
                          RepeatedKeys repeated_keys = RepeatedKeys::kAllowed);

/// Parses a file of at most `max_bytes`. @throws FormatError.
nlohmann::json parse_json_file(const std::filesystem::path& path, std::size_t max_bytes,
                               int max_depth);

/// A value in a JSON document, and what errors call it. Null counts as absent. What is not as asked
/// for makes a FormatError that names the field, its value and what was expected.
class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string name)
      : value_(&value), name_(std::move(name)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& name() const { return name_; }
  bool is_null() const { return value_->is_null(); }

  /// A member of this object; null if it has none.
  JsonField at(std::string_view key) const;
  /// An element of this array.
  JsonField at(std::size_t i) const;
  /// Elements of this array.
  std::size_t size() const;

  const std::string& string() const;
  std::string string_or(std::string otherwise) const;
  /// Within [least, most].
  std::int64_t integer(std::int64_t least, std::int64_t most) const;
  std::int64_t integer_or(std::int64_t otherwise, std::int64_t least, std::int64_t most) const;
  double number() const;
  /// Within [least, most].
  double number(double least, double most) const;
  double number_or(double otherwise, double least, double most) const;
  bool boolean_or(bool otherwise) const;

  /// @throws Unsupported if this object has a member that is not listed.
  void allow_only(std::initializer_list<std::string_view> keys) const;
  [[noreturn]] void expected(std::string_view what) const;     ///< @throws FormatError
  [[noreturn]] void unsupported(std::string_view what) const;  ///< @throws Unsupported

 private:
  const nlohmann::json* value_;
  std::string name_;
};

}  // namespace mla::proto
