#pragma once

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace mla::proto {

// For .cpp files of this folder alone: the JSON library makes for slow compiling.

/// Reads the fields of a JSON object by their types and remembers which were asked for, so that
/// those nobody knows can be refused. A field that is null counts as absent. Every reader throws a
/// FormatError that names the field, its value and what was expected.
class Fields {
 public:
  /// `name` begins the names of fields in errors: "config.json". The object must outlive this.
  Fields(const nlohmann::json& object, std::string name);

  const std::string& name() const { return name_; }

  bool has(const std::string& key);

  /// Within [least, most].
  std::int64_t integer(const std::string& key, std::int64_t least, std::int64_t most);
  std::int64_t integer_or(const std::string& key, std::int64_t otherwise, std::int64_t least,
                          std::int64_t most);
  double number(const std::string& key, double least, double most);
  double number_or(const std::string& key, double otherwise, double least, double most);
  bool flag_or(const std::string& key, bool otherwise);
  std::string text(const std::string& key);
  std::string text_or(const std::string& key, std::string otherwise);
  /// `count` numbers.
  std::vector<double> numbers(const std::string& key, std::size_t count, double least, double most);
  /// An integer or an array of at most 64; empty if absent.
  std::vector<std::int32_t> token_ids(const std::string& key);
  /// The elements of an array of at most `most` texts; empty if absent.
  std::vector<std::string> texts(const std::string& key, std::size_t most);

  /// An object in a field.
  Fields object(const std::string& key);

  /// The field must be absent or have this value: another would mean a computation that is not
  /// done here.
  void expect(const std::string& key, const nlohmann::json& value);

  /// Fields that do not change what is computed.
  void ignore(std::initializer_list<const char*> keys) { known_.insert(keys.begin(), keys.end()); }

  /// @throws FormatError naming the first field that nobody asked for.
  void refuse_others() const;

  /// Throws the error about a field.
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;

 private:
  const nlohmann::json& require(const std::string& key);
  double number_in(const nlohmann::json& value, const std::string& key, double least,
                   double most) const;

  const nlohmann::json& object_;
  std::string name_;
  std::set<std::string> known_;
};

}  // namespace mla::proto
