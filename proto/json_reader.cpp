#include "proto/json_reader.h"

#include <algorithm>
#include <set>
#include <vector>

#include "proto/file_io.h"

namespace mla::proto {

using nlohmann::json;

std::string shown(const json& value) {
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  constexpr std::size_t kMost = 60;
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

std::string reason_of(const json::exception& error) {
  const std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at"
  return std::string(what.substr(what.find("] ") + 2, 200));
}

json parse_json(std::string_view text, const std::string& name, int max_depth,
                RepeatedKeys repeated_keys) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, const json& parsed) {
    if (depth > max_depth) {
      throw FormatError(name, "nested too deep",
                        "at most " + std::to_string(max_depth) + " levels");
    }
    if (repeated_keys == RepeatedKeys::kAllowed) return true;
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key &&
               !keys.back().insert(parsed.get<std::string>()).second) {
      throw FormatError(name, "key " + shown(parsed) + " twice", "each key once");
    }
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception& error) {
    throw FormatError(name, reason_of(error), "JSON in UTF-8");
  }
}

json parse_json_file(const std::filesystem::path& path, std::size_t max_bytes, int max_depth) {
  const MappedFile file(path, max_bytes);
  return parse_json(file.text(), "file '" + path.string() + "'", max_depth);
}

JsonField JsonField::at(std::string_view key) const {
  static const json kNull;
  if (!value_->is_object()) expected("an object");
  const auto found = value_->find(key);
  const std::string separator = name_.empty() ? "" : ".";
  return {found == value_->end() ? kNull : *found, name_ + separator + std::string(key)};
}

JsonField JsonField::at(std::size_t i) const {
  return {value_->at(i), name_ + "[" + std::to_string(i) + "]"};
}

std::size_t JsonField::size() const {
  if (!value_->is_array()) expected("an array");
  return value_->size();
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) expected("a string");
  return value_->get_ref<const std::string&>();
}

std::string JsonField::string_or(std::string otherwise) const {
  return is_null() ? otherwise : string();
}

std::int64_t JsonField::integer(std::int64_t least, std::int64_t most) const {
  const bool fits = value_->is_number_integer() &&
                    !(value_->is_number_unsigned() && value_->get<std::uint64_t>() > INT64_MAX);
  const std::int64_t number = fits ? value_->get<std::int64_t>() : 0;
  if (!fits || number < least || number > most) {
    expected("an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return number;
}

std::int64_t JsonField::integer_or(std::int64_t otherwise, std::int64_t least,
                                   std::int64_t most) const {
  return is_null() ? otherwise : integer(least, most);
}

double JsonField::number() const {
  if (!value_->is_number()) expected("a number");
  return value_->get<double>();
}

double JsonField::number(double least, double most) const {
  if (!value_->is_number() || number() < least || number() > most) {
    expected("a number from " + json(least).dump() + " to " + json(most).dump());
  }
  return number();
}

double JsonField::number_or(double otherwise, double least, double most) const {
  return is_null() ? otherwise : number(least, most);
}

bool JsonField::boolean_or(bool otherwise) const {
  if (is_null()) return otherwise;
  if (!value_->is_boolean()) expected("true or false");
  return value_->get<bool>();
}

void JsonField::allow_only(std::initializer_list<std::string_view> keys) const {
  if (!value_->is_object()) expected("an object");
  for (const auto& [key, member] : value_->items()) {
    if (std::ranges::find(keys, key) == keys.end() && !member.is_null()) {
      at(key).unsupported("no such field");
    }
  }
}

void JsonField::expected(std::string_view what) const {
  throw FormatError(name_, is_null() ? "missing" : shown(*value_), what);
}

void JsonField::unsupported(std::string_view what) const {
  throw Unsupported(name_, shown(*value_), what);
}

}  // namespace mla::proto
