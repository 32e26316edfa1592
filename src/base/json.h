// JSON in and out through nlohmann-json, with errors that name the file and the key.
#pragma once

#include <cmath>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mica {

// Keeps the order in which keys were written, so that result files read well.
using Json = nlohmann::ordered_json;

// What becomes of a key that an object has twice.
enum class DuplicateKeys {
  kTakeLast,  // as Python and JavaScript have it: files that programs write
  kRefuse     // files that people write, who cannot have meant both
};

// Parses a JSON file of at most 64 MiB; throws Error naming the file and the line of the first fault.
Json ReadJson(const std::filesystem::path& path, DuplicateKeys duplicates = DuplicateKeys::kTakeLast);
// Parses text that came from `where` (named in errors). Throws Error; nesting deeper than 64 levels is
// refused.
Json ParseJson(std::string_view text, const std::string& where,
               DuplicateKeys duplicates = DuplicateKeys::kTakeLast);
// JSON as result files hold it: indented by two blanks, one newline at the end. Bytes that are not UTF-8 (of
// a path) are replaced, characters that act on a terminal written as \uNNNN.
std::string JsonText(const Json& json);
// The same on one line, for messages.
std::string ShownJson(const Json& json);
// What is wrong with JSON that could not be parsed or written, in our own words: "line 3, column 7:
// unexpected '}', expected ']'".
std::string JsonReason(const std::exception& failure);

// Writes `value` indented by two spaces, atomically.
void WriteJson(const std::filesystem::path& path, const Json& value);

// Sets `value` to the whole number that `json` is; false when it is none, or beyond T.
template <typename T>
bool ReadWhole(const Json& json, T& value) {
  if (json.is_number_unsigned()) {
    const auto number = json.get<uint64_t>();
    if (!std::in_range<T>(number)) return false;
    value = static_cast<T>(number);
    return true;
  }
  if (json.is_number_integer()) {
    const auto number = json.get<int64_t>();
    if (!std::in_range<T>(number)) return false;
    value = static_cast<T>(number);
    return true;
  }
  const double number = json.is_number() ? json.get<double>() : 0.5;
  constexpr double kEnd = 2 * static_cast<double>(std::numeric_limits<T>::max() / 2 + 1);
  if (!(number >= static_cast<double>(std::numeric_limits<T>::min()) && number < kEnd) ||
      number != std::floor(number))
    return false;
  value = static_cast<T>(number);
  return true;
}

// What JSON must have for a T: "a whole number", "true or false", "text", ...
template <typename T>
const char* JsonTypeText() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_integral_v<T>)
    return std::is_signed_v<T> ? "a whole number" : "a whole number from 0 on";
  if constexpr (std::is_floating_point_v<T>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "text";
  if constexpr (requires(T list) { list.push_back(*list.begin()); }) return "an array";
  return "an object";
}

// Reads the keys of an object, each at most once, and tells which of them nobody has asked for. `where` names
// the file, and the place in it, in errors. The object must outlive its reader.
class JsonReader {
 public:
  // Throws Error when `json` is no object.
  JsonReader(const Json& json, std::string where);

  // The value under `key`, or nullptr.
  const Json* Find(const char* key);
  // Leaves `value` as it is when there is none. Throws Error when it is of another type, or a number that T
  // cannot hold as it is (2.9 or -1 for a count).
  template <typename T>
  void Read(const char* key, T& value) {
    const Json* found = Find(key);
    if (found == nullptr) return;
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (!ReadWhole(*found, value)) RefuseType(key, *found, JsonTypeText<T>());
      return;
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!found->is_number()) RefuseType(key, *found, JsonTypeText<T>());  // the library takes true for 1
    }
    try {
      found->get_to(value);
    } catch (const nlohmann::json::exception&) {
      RefuseType(key, *found, JsonTypeText<T>());
    }
  }
  // Throws the Error of a value that is not of the type it should have ("a number").
  [[noreturn]] void RefuseType(const char* key, const Json& value, const std::string& expected) const;

  // The keys that nobody has asked for, with their values: those to keep.
  Json Rest() const;
  // Throws Error when there are any: a file that people write must not have words that mean nothing.
  void Finish() const;

  const std::string& where() const { return where_; }

 private:
  const Json& json_;
  std::string where_;
  std::vector<std::string> known_;
};

}  // namespace mica
