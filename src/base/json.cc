#include "base/json.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"

namespace mica {
namespace {

constexpr uint64_t kMaxJsonBytes = uint64_t{64} << 20;
constexpr int kMaxDepth = 64;

}  // namespace

Json ParseJson(std::string_view text, const std::string& where) {
  // The library's parser recurses on nothing but its destructor does, so depth is bounded while parsing.
  const auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) Fail("{}: JSON nested deeper than {} levels", where, kMaxDepth);
    return true;
  };
  try {
    return Json::parse(text, limit_depth);
  } catch (const nlohmann::json::exception& failure) {
    RefuseOtherKind(text, where, kJsonFile);
    std::string reason = failure.what();
    if (const size_t end_of_id = reason.find("] "); end_of_id != std::string::npos)
      reason = reason.substr(end_of_id + 2);
    for (char& c : reason) {
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    }
    Fail("{}: is not valid JSON ({})", where, reason.substr(0, 200));
  }
}

Json ReadJson(const std::filesystem::path& path) {
  return ParseJson(ReadFile(path, kMaxJsonBytes), path.string());
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

void JsonReader::RefuseType(const char* key, const Json& value) const {
  Fail("{}: \"{}\" is {}, which is not of the right type", where_, key, value.dump());
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
