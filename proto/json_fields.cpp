#include "proto/json_fields.h"

#include <algorithm>
#include <limits>
#include <sstream>

#include "core/error.h"
#include "proto/json_reader.h"

namespace mla::proto {
namespace {

using nlohmann::json;

std::string number_text(double x) {
  std::ostringstream stream;
  stream << x;
  return stream.str();
}

}  // namespace

Fields::Fields(const json& object, std::string name) : object_(object), name_(std::move(name)) {
  if (!object.is_object()) throw FormatError(name_, shown(object), "a JSON object");
}

bool Fields::has(const std::string& key) {
  known_.insert(key);
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

const json& Fields::require(const std::string& key) {
  if (!has(key)) throw FormatError(name_ + ": " + key, "missing", "present");
  return object_.at(key);
}

void Fields::refuse(const std::string& key, const std::string& expected) const {
  const auto found = object_.find(key);
  throw FormatError(name_ + ": " + key, found == object_.end() ? "missing" : shown(*found),
                    expected);
}

std::int64_t Fields::integer(const std::string& key, std::int64_t least, std::int64_t most) {
  const json& value = require(key);
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() &&
                      value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max());
  if (!fits || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
    refuse(key, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value.get<std::int64_t>();
}

std::int64_t Fields::integer_or(const std::string& key, std::int64_t otherwise, std::int64_t least,
                                std::int64_t most) {
  return has(key) ? integer(key, least, most) : otherwise;
}

double Fields::number_in(const json& value, const std::string& key, double least,
                         double most) const {
  // Written so that a NaN fails; JSON has none, but 1e999 is an infinity.
  if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
    throw FormatError(name_ + ": " + key, shown(value),
                      "a number from " + number_text(least) + " to " + number_text(most));
  }
  return value.get<double>();
}

double Fields::number(const std::string& key, double least, double most) {
  return number_in(require(key), key, least, most);
}

double Fields::number_or(const std::string& key, double otherwise, double least, double most) {
  return has(key) ? number(key, least, most) : otherwise;
}

bool Fields::flag_or(const std::string& key, bool otherwise) {
  if (!has(key)) return otherwise;
  if (!object_.at(key).is_boolean()) refuse(key, "true or false");
  return object_.at(key).get<bool>();
}

std::string Fields::text(const std::string& key) {
  if (!require(key).is_string()) refuse(key, "a string");
  return object_.at(key).get<std::string>();
}

std::string Fields::text_or(const std::string& key, std::string otherwise) {
  return has(key) ? text(key) : otherwise;
}

std::vector<double> Fields::numbers(const std::string& key, std::size_t count, double least,
                                    double most) {
  const json& value = require(key);
  if (!value.is_array() || value.size() != count) {
    refuse(key, "an array of " + std::to_string(count) + " numbers");
  }
  std::vector<double> result;
  for (const json& element : value) result.push_back(number_in(element, key, least, most));
  return result;
}

std::vector<std::int32_t> Fields::token_ids(const std::string& key) {
  constexpr std::size_t kMost = 64;
  if (!has(key)) return {};
  const json& value = object_.at(key);
  const json list = value.is_array() ? value : json::array({value});
  std::vector<std::int32_t> ids;
  for (const json& id : list) {
    if (ids.size() == kMost || !id.is_number_unsigned() ||
        id.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
      refuse(key, "a token id, or an array of at most " + std::to_string(kMost));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

std::vector<std::string> Fields::texts(const std::string& key, std::size_t most) {
  if (!has(key)) return {};
  const json& value = object_.at(key);
  std::vector<std::string> result;
  const bool fits = value.is_array() && value.size() <= most &&
                    std::all_of(value.begin(), value.end(),
                                [](const json& element) { return element.is_string(); });
  if (!fits) refuse(key, "an array of at most " + std::to_string(most) + " strings");
  for (const json& element : value) result.push_back(element.get<std::string>());
  return result;
}

Fields Fields::object(const std::string& key) {
  if (!require(key).is_object()) refuse(key, "an object");
  return {object_.at(key), name_ + ": " + key};
}

void Fields::expect(const std::string& key, const json& value) {
  if (has(key) && object_.at(key) != value) {
    refuse(key, value.dump() + "; nothing else is supported");
  }
}

void Fields::refuse_others() const {
  for (const auto& [key, value] : object_.items()) {
    if (!value.is_null() && !known_.contains(key)) {
      refuse(key, "no such field: it may change what the model computes, in a way unknown here");
    }
  }
}

}  // namespace mla::proto
