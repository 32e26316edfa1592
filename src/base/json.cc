#include "base/json.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"

namespace mica {
namespace {

constexpr uint64_t kMaxJsonBytes = uint64_t{64} << 20;
constexpr int kMaxDepth = 64;

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
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::exception& failure) {
    std::string reason = failure.what();
    if (const size_t end_of_id = reason.find("] "); end_of_id != std::string::npos)
      reason = reason.substr(end_of_id + 2);
    for (char& c : reason) {
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    }
    Fail("{}: is not valid JSON ({})", where, reason.substr(0, 200));
  }
}

Json ReadJson(const std::filesystem::path& path, DuplicateKeys duplicates) {
  return ParseJson(ReadFile(path, kMaxJsonBytes), path.string(), duplicates);
}

void WriteJson(const std::filesystem::path& path, const Json& value) {
  WriteFileAtomically(path, value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
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
  std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
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
