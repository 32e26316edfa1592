#include "experiment/sweep/axis.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "experiment/quality/quality_budget.h"
#include "record/options.h"

namespace mica {
namespace {

constexpr size_t kMostValues = 1000;

const Option& OptionUnder(const std::string& key, const std::string& where) {
  std::vector<std::string> known = {"points", "keep", "others"};
  for (const Option& option : CompressionOptionTable()) {
    if (option.place == OptionPlace::kFlag) continue;
    const std::string its = *option.one_of != '\0' ? std::string(option.one_of) : KeyOf(option);
    if (its == key) return option;
    known.push_back(its);
  }
  const std::string nearest = NearestName(key, known);
  Fail("{}: unknown key \"{}\"{}; expected \"points\", \"keep\", \"others\" or a key of \"compress\"", where,
       key, nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest));
}

// The option of a budget's kind.
const Option& OptionOfBudget(const Json& budget, const std::string& where) {
  const Json kind = budget.is_object() ? budget.value("kind", Json()) : Json();
  const Option* const option = kind.is_string() ? BudgetOfKind(kind.get<std::string>()) : nullptr;
  if (option == nullptr) {
    Fail("{}: \"budget\" is {}, expected an object whose \"kind\" is bits, bpw, size, kl or retention", where,
         ShownJson(budget));
  }
  return *option;
}

// As values of points name it: budgets by their kind.
std::string NameOf(const Option& option) {
  const char* const kind = KindOfBudget(option);
  return kind != nullptr ? kind : option.name;
}

// The "value" of a budget; no other key but "kind" may stand beside it.
const Json& ValueOfBudget(const Json& budget, const std::string& where) {
  JsonReader reader(budget, where + ", \"budget\"");
  reader.Find("kind");
  const Json* const value = reader.Find("value");
  reader.Finish();
  if (value == nullptr) Fail("{}, \"budget\": has no \"value\"", where);
  return *value;
}

Json Rounded(const Option& option, double value) {
  const bool whole = option.kind == OptionKind::kInteger || option.kind == OptionKind::kBytes;
  // A step of a third of a bit is shown, and kept, in as many digits as anybody means.
  constexpr double kDigits = 1e6;
  return whole ? Json(static_cast<int64_t>(std::llround(value)))
               : Json(std::round(value * kDigits) / kDigits);
}

std::vector<Json> Range(const Option& option, const Json& json, const std::string& where) {
  double from = 0, to = 0;
  size_t points = 0;
  JsonReader reader(json, where);
  for (const char* key : {"from", "to", "points"}) {
    if (!json.contains(key))
      Fail("{}: has no \"{}\", expected a list or {{\"from\", \"to\", \"points\"}}", where, key);
  }
  reader.Read("from", from);
  reader.Read("to", to);
  reader.Read("points", points);
  reader.Finish();
  const bool number = option.kind == OptionKind::kNumber || option.kind == OptionKind::kInteger ||
                      option.kind == OptionKind::kBytes;
  if (!number) Fail("{}: {} has no ranges; give a list", where, option.name);
  if (!(from < to))
    Fail("{}: \"from\" is {:g} and \"to\" is {:g}, expected \"from\" below \"to\"", where, from, to);
  if (points < 2 || points > kMostValues)
    Fail("{}: \"points\" is {}, expected 2 to {}", where, points, kMostValues);
  std::vector<Json> values;
  for (size_t i = 0; i < points; ++i) {
    Json value =
        Rounded(option, from + (to - from) * static_cast<double>(i) / static_cast<double>(points - 1));
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(std::move(value));
  }
  return values;
}

void AddValues(const Option& option, const Json& json, const std::string& where, Axis& axis) {
  const std::string inside = fmt::format("{}, \"{}\"", where, axis.key);
  std::vector<Json> values;
  if (json.is_array()) {
    std::copy(json.begin(), json.end(), std::back_inserter(values));
  } else if (json.is_object()) {
    values = Range(option, json, inside);
  } else {
    Fail("{}: is {}, expected a list of values or {{\"from\", \"to\", \"points\"}}", inside, ShownJson(json));
  }
  if (values.empty()) Fail("{}: is empty, expected at least one value", inside);
  for (const Json& value : values) {
    std::pair<std::string, Json> one{NameOf(option), CheckedValue(option, value, where)};
    if (std::find(axis.values.begin(), axis.values.end(), one) != axis.values.end())
      Fail("{}: has {} twice", inside, ShownJson(value));
    axis.values.push_back(std::move(one));
  }
}

}  // namespace

Axis ReadAxis(const std::string& key, const Json& json, const std::string& where) {
  Axis axis;
  axis.key = key;
  const Option& option = OptionUnder(key, where);
  if (*option.one_of == '\0') {
    AddValues(option, json, where, axis);
  } else if (json.is_array()) {
    for (const Json& budget : json) {
      const Option& kind = OptionOfBudget(budget, where);
      const Json& value = ValueOfBudget(budget, where);
      AddValues(kind, value.is_number() ? Json::array({value}) : value, where, axis);
    }
  } else {
    AddValues(OptionOfBudget(json, where), ValueOfBudget(json, where), where, axis);
  }
  if (axis.values.empty()) Fail("{}, \"{}\": is empty, expected at least one value", where, key);
  return axis;
}

Ordered<Json> ReadPoint(const Json& json, const std::string& where) {
  Json given = json;
  Ordered<Json> point;
  if (const std::optional<QualityBudget> quality = TakeQuality(given, where))
    point.emplace_back(QualityName(quality->kind), quality->value);
  const Json values = ReadOptions(CompressionOptionTable(), given, where);
  for (const Option& option : CompressionOptionTable()) {
    if (const Json* value = ValueIn(values, option)) point.emplace_back(option.name, *value);
  }
  return point;
}

}  // namespace mica
