#include "model/config_reader.h"

#include <cmath>

namespace mica {
namespace {

constexpr double kMostPositive = 1e12;

bool IsPositive(const Json& value, double limit) {
  return value.is_number() && value.get<double>() > 0.0 && value.get<double>() <= limit;
}

}  // namespace

ConfigReader::ConfigReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
  if (!json.is_object()) Fail("{}: expected a JSON object, found {}", where_, json.type_name());
}

const Json* ConfigReader::Find(const char* key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::RefuseWith(const char* key, const Json& value, const std::string& what) const {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  Fail("{}: {} is {}, {}", where_, key, text, what);
}

size_t ConfigReader::CountOf(const char* key, const Json& value, uint64_t least, uint64_t limit) const {
  // A negative number stays negative in a signed type; a large unsigned one must not become negative.
  const bool whole = value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
  if (!whole || value.get<uint64_t>() < least || value.get<uint64_t>() > limit)
    Refuse(key, value, "expected a whole number from {} to {}", least, limit);
  return value.get<uint64_t>();
}

size_t ConfigReader::Count(const char* key, uint64_t limit) const {
  const Json* value = Find(key);
  if (value == nullptr) Fail("{}: {} is missing, expected a whole number from 1 to {}", where_, key, limit);
  return CountOf(key, *value, 1, limit);
}

size_t ConfigReader::Count(const char* key, uint64_t limit, size_t otherwise) const {
  const Json* value = Find(key);
  return value == nullptr ? otherwise : CountOf(key, *value, 1, limit);
}

std::vector<size_t> ConfigReader::Counts(const char* key, size_t count, uint64_t limit) const {
  const Json* value = Find(key);
  if (value == nullptr) return {};
  if (!value->is_array() || value->size() != count)
    Refuse(key, *value, "expected {} whole numbers from 0 to {}", count, limit);
  std::vector<size_t> counts;
  for (const Json& one : *value) counts.push_back(CountOf(key, one, 0, limit));
  return counts;
}

double ConfigReader::Positive(const char* key, double limit, double otherwise) const {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!IsPositive(*value, limit)) Refuse(key, *value, "expected a number above 0 and at most {:g}", limit);
  return value->get<double>();
}

double ConfigReader::Positive(const char* key, double limit) const {
  if (Find(key) == nullptr) Fail("{}: {} is missing, expected a number above 0", where_, key);
  return Positive(key, limit, 0.0);
}

double ConfigReader::PositiveOrNull(const char* key, double limit, double otherwise) const {
  return Positive(key, limit, json_.contains(key) ? 0.0 : otherwise);
}

double ConfigReader::NotNegative(const char* key, double otherwise) const {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_number() || !(value->get<double>() >= 0.0) || !std::isfinite(value->get<double>()))
    Refuse(key, *value, "expected a number from 0 on");
  return value->get<double>();
}

std::vector<double> ConfigReader::Positives(const char* key, size_t count) const {
  const Json* value = Find(key);
  if (value == nullptr) Fail("{}: {} is missing, expected {} numbers above 0", where_, key, count);
  std::vector<double> numbers;
  if (value->is_array() && value->size() == count) {
    for (const Json& one : *value) {
      if (IsPositive(one, kMostPositive)) numbers.push_back(one.get<double>());
    }
  }
  if (numbers.size() != count) Refuse(key, *value, "expected {} numbers above 0", count);
  return numbers;
}

bool ConfigReader::Flag(const char* key, bool otherwise) const {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) Refuse(key, *value, "expected true or false");
  return value->get<bool>();
}

std::string ConfigReader::Text(const char* key, const std::string& otherwise) const {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) Refuse(key, *value, "expected a string");
  return value->get<std::string>();
}

}  // namespace mica
