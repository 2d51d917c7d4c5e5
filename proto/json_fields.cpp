#include "proto/json_fields.h"

#include <sstream>

namespace mla::proto {

Fields::Fields(const JsonField& object) : object_(object) {
  if (!object.value().is_object()) object.expected("a JSON object");
}

JsonField Fields::member(std::string_view key) const {
  return {object_.at(key).value(), object_.name() + ": " + std::string(key)};
}

JsonField Fields::operator[](std::string_view key) {
  known_.emplace(key);
  return member(key);
}

void Fields::expect(std::string_view key, const nlohmann::json& value) {
  const JsonField field = (*this)[key];
  if (!field.is_null() && field.value() != value) {
    field.expected(value.dump() + "; nothing else is supported");
  }
}

void Fields::ignore(const std::string& keys) {
  std::istringstream words(keys);
  for (std::string key; words >> key;) known_.insert(key);
}

void Fields::refuse_others() const {
  for (const auto& [key, value] : object_.value().items()) {
    if (!value.is_null() && !known_.contains(key)) {
      member(key).expected(
          "no such field: it may change what the model computes, in a way unknown here");
    }
  }
}

}  // namespace mla::proto
