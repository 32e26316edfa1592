// JSON in and out through nlohmann-json, with errors that name the file and the key.
#pragma once

#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// Keeps the order in which keys were written, so that result files read well.
using Json = nlohmann::ordered_json;

// Parses a JSON file of at most 64 MiB; throws Error naming the file and the line of the first fault.
Json ReadJson(const std::filesystem::path& path);
// Parses text that came from `where` (named in errors). Throws Error; nesting deeper than 64 levels is
// refused.
Json ParseJson(std::string_view text, const std::string& where);
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

// Reads the keys of an object, each at most once, and tells which of them nobody has asked for. `where` names
// the file, and the place in it, in errors. The object must outlive its reader.
class JsonReader {
 public:
  // Throws Error when `json` is no object.
  JsonReader(const Json& json, std::string where);

  // The value under `key`, or nullptr.
  const Json* Find(const char* key);
  // Leaves `value` as it is when there is none. Throws Error when it is of another type.
  template <typename T>
  void Read(const char* key, T& value) {
    const Json* found = Find(key);
    if (found == nullptr) return;
    try {
      found->get_to(value);
    } catch (const nlohmann::json::exception&) {
      RefuseType(key, *found);
    }
  }
  // Throws the Error of a value that is not of the type it should have.
  [[noreturn]] void RefuseType(const char* key, const Json& value) const;

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
