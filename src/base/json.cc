#include "base/json.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/text.h"

namespace mica {
namespace {

constexpr uint64_t kMaxJsonBytes = uint64_t{64} << 20;
constexpr int kMaxDepth = 64;
constexpr size_t kNearBytes = 40;  // of the text shown before a fault

}  // namespace

Json ParseJson(std::string_view text, const std::string& where, DuplicateKeys duplicates) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open; [0]: of none
  // The library's parser recurses on nothing but its destructor does, so depth is bounded while parsing.
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) Fail("{}: JSON nested deeper than {} levels", where, kMaxDepth);
    if (duplicates == DuplicateKeys::kTakeLast) return true;
    const auto level = static_cast<size_t>(depth);
    if (event == Json::parse_event_t::object_start) keys.resize(level + 1);
    if (event == Json::parse_event_t::key) {
      keys.resize(level + 1);
      if (!keys[level].insert(value.get<std::string>()).second)
        Fail("{}: key {} is given twice in one object; take one of them out", where,
             value.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    if (event == Json::parse_event_t::object_end) keys.resize(level + 1);
    return true;
  };
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) Fail("{}: is empty, expected JSON", where);
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::exception& failure) {
    RefuseOtherKind(text, where, kJsonFile);
    Fail("{}: is not valid JSON ({})", where, JsonReason(failure));
  }
}

std::string JsonText(const Json& json) {
  return PrintableJson(json.dump(2, ' ', false, Json::error_handler_t::replace)) + "\n";
}

std::string ShownJson(const Json& json) {
  return Printable(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// The library says "parse error at line 3, column 7: syntax error while parsing value - WHAT; last read:
// 'TEXT'; expected ...", "number overflow parsing '1e999'", or of text that cannot be written "invalid UTF-8
// byte ...".
std::string JsonReason(const std::exception& failure) {
  const std::string_view reason = failure.what();
  const auto between = [&](std::string_view begin, std::string_view end) -> std::string_view {
    const size_t from = reason.find(begin);
    if (from == std::string_view::npos) return "";
    const std::string_view rest = reason.substr(from + begin.size());
    return rest.substr(0, rest.find(end));
  };
  const auto says = [&](std::string_view words) { return reason.find(words) != std::string_view::npos; };
  if (const std::string_view number = between("number overflow parsing '", "'"); !number.empty())
    return fmt::format("the number {} is too large", Printable(number));
  if (says("UTF-8")) return "it holds text that is not UTF-8";
  std::string text(between("parse error at ", ":"));
  if (says("unexpected end of input")) return text + ": it ends too early";
  if (const std::string_view found = between(" - unexpected ", ";"); !found.empty()) {
    text += fmt::format(": unexpected {}", Printable(found));
    if (const std::string_view expected = between("; expected ", ";"); !expected.empty())
      text += fmt::format(", expected {}", Printable(expected));
    return text;
  }
  std::string_view read = between("last read: '", "'");
  if (read.size() > kNearBytes) read.remove_prefix(read.size() - kNearBytes);
  return read.empty() ? text : fmt::format("{}, near '{}'", text, Printable(read));
}

Json ReadJson(const std::filesystem::path& path, DuplicateKeys duplicates) {
  return ParseJson(ReadFile(path, kMaxJsonBytes), path.string(), duplicates);
}

void WriteJson(const std::filesystem::path& path, const Json& value) {
  WriteFileAtomically(path, JsonText(value));
}

JsonReader::JsonReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
  if (!json_.is_object()) Fail("{}: is {}, expected an object", where_, json_.type_name());
}

const Json* JsonReader::Find(const char* key) {
  known_.push_back(key);
  const auto found = json_.find(key);
  return found == json_.end() ? nullptr : &*found;
}

void JsonReader::RefuseType(const char* key, const Json& value, const std::string& expected) const {
  std::string shown = ShownJson(value);
  constexpr size_t kShown = 120;
  if (shown.size() > kShown) shown = shown.substr(0, kShown) + "...";
  Fail("{}: \"{}\" is {}, which is not of the right type, expected {}", where_, key, shown, expected);
}

Json JsonReader::Rest() const {
  Json rest;
  for (const auto& item : json_.items()) {
    if (std::find(known_.begin(), known_.end(), item.key()) == known_.end()) rest[item.key()] = item.value();
  }
  return rest;
}

void JsonReader::Finish() const {
  const Json rest = Rest();
  if (rest.empty()) return;
  Fail("{}: unknown key \"{}\", expected one of {}", where_, rest.begin().key(), fmt::join(known_, ", "));
}

}  // namespace mica
