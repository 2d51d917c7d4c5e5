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

/// Parses one JSON value. @throws FormatError, naming `name`, for wrong syntax, text that is not
/// UTF-8, or nesting deeper than `max_depth`.
nlohmann::json parse_json(std::string_view text, const std::string& name, int max_depth);

/// Parses a file of at most `max_bytes`. @throws FormatError.
nlohmann::json parse_json_file(const std::filesystem::path& path, std::size_t max_bytes,
                               int max_depth);

/// A value in a JSON document, and what errors call it.
class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string name)
      : value_(&value), name_(std::move(name)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& name() const { return name_; }
  bool is_null() const { return value_->is_null(); }

  /// A member of this object; null if it has none. @throws FormatError if this is no object.
  JsonField at(std::string_view key) const;
  /// An element of this array.
  JsonField at(std::size_t i) const;
  /// Elements of this array. @throws FormatError if it is none.
  std::size_t size() const;

  /// @throws FormatError unless it is a string.
  const std::string& string() const;
  /// @throws FormatError unless it is an integer within [least, most].
  std::int64_t integer(std::int64_t least, std::int64_t most) const;
  /// @throws FormatError unless it is a number.
  double number() const;
  /// Null counts as `otherwise`. @throws FormatError unless it is true or false.
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
