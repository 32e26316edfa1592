#include "record/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "base/error.h"
#include "base/units.h"

namespace mica {
namespace {

// "2, 3 or 4".
template <typename T>
std::string Alternatives(const std::vector<T>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == items.size() ? " or " : ", ", items[i]);
  return text;
}

std::string WithUnit(const std::string& text, const Option& option) {
  return *option.unit != '\0' ? text + " " + option.unit : text;
}

// The option as a refusal names it: where it was given.
std::string Spelled(const Option& option, const std::string& where) {
  if (where.empty()) return fmt::format("--{}", option.name);
  if (*option.one_of != '\0') return fmt::format("{}, \"{}\": \"{}\"", where, option.one_of, option.name);
  return fmt::format("{}: \"{}\"", where, KeyOf(option));
}

std::string ShownValue(const Json& value, const std::string& where) {
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());  // NaN has no JSON
  if (value.is_string() && where.empty()) return fmt::format("'{}'", value.get<std::string>());
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

[[noreturn]] void Refuse(const Option& option, const Json& value, const std::string& where,
                         const char* kind = "") {
  Fail("{} is {}, expected {}{}", Spelled(option, where), ShownValue(value, where), kind,
       ExpectedText(option));
}

[[noreturn]] void RefuseType(const Option& option, const Json& value, const std::string& where,
                             const char* kind = "") {
  Fail("{} is {}, {}expected {}{}", Spelled(option, where), ShownValue(value, where),
       where.empty() ? "" : "which is not of the right type, ", kind, ExpectedText(option));
}

bool IsWhole(const Json& value) {
  if (value.is_number_integer()) return true;
  const double number = value.get<double>();
  return std::trunc(number) == number && std::fabs(number) <= kMostExactInteger;
}

Json WholeOf(const Json& value) {
  return value.is_number_integer() ? value : Json(static_cast<int64_t>(value.get<double>()));
}

bool InRange(const Option& option, const Json& value) {
  const double number = value.get<double>();
  const bool above = option.above_least ? number > option.least : number >= option.least;
  const bool below = option.below_most ? number < option.most : number <= option.most;
  return above && below;
}

// A number of bytes, whole up to the rounding of "4.35MB".
Json CheckedBytes(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_number()) RefuseType(option, value, where, "a number, ");
  if (!InRange(option, value)) Refuse(option, value, where);
  if (!IsWhole(value)) Refuse(option, value, where, "a whole number, ");
  return value;
}

Json CheckedInteger(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_number()) RefuseType(option, value, where, "a whole number, ");
  if (!IsWhole(value)) Refuse(option, value, where, "a whole number, ");
  const Json whole = WholeOf(value);
  const bool allowed = option.integers.empty() ? InRange(option, whole)
                                               : std::any_of(option.integers.begin(), option.integers.end(),
                                                             [&](int one) { return whole == one; });
  if (!allowed) Refuse(option, whole, where);
  return whole;
}

Json CheckedIntegers(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_array()) RefuseType(option, value, where, "a list, ");
  if (value.empty()) Fail("{} is empty, expected {}", Spelled(option, where), ExpectedText(option));
  Json checked = Json::array();
  for (const Json& item : value) {
    const bool allowed =
        item.is_number() && IsWhole(item) &&
        std::any_of(option.integers.begin(), option.integers.end(), [&](int one) { return item == one; });
    if (!allowed) {
      Fail("{} has {}, expected {}", Spelled(option, where), ShownValue(item, where), ExpectedText(option));
    }
    const Json whole = WholeOf(item);
    if (std::find(checked.begin(), checked.end(), whole) != checked.end()) {
      Fail("{} has {} twice, expected {}, each once", Spelled(option, where), whole.dump(),
           ExpectedText(option));
    }
    checked.push_back(whole);
  }
  return checked;
}

Json CheckedSources(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_array()) RefuseType(option, value, where);
  const std::string inside =
      where.empty() ? "--" + std::string(option.name) : where + ", \"" + KeyOf(option) + "\"";
  for (const Json& source : value) {
    if (!source.is_object()) Fail("{}: is {}, expected an object", inside, source.type_name());
    for (const auto& [key, item] : source.items()) {
      if (std::none_of(option.words.begin(), option.words.end(),
                       [&key = key](const char* word) { return key == word; }))
        Fail("{}: unknown key \"{}\", expected one of {}", inside, key, fmt::join(option.words, ", "));
      const bool number = key == "weight";
      if (number ? !item.is_number() : !item.is_string()) {
        Fail("{}: \"{}\" is {}, which is not of the right type, expected {}", inside, key,
             ShownValue(item, inside), number ? "a positive number" : "text");
      }
      if (!number && item == "") Fail("{}: \"{}\" is empty, expected text", inside, key);
      if (number && !(item.get<double>() > 0 && std::isfinite(item.get<double>())))
        Fail("{}: \"{}\" is {}, expected a positive number", inside, key, ShownValue(item, inside));
    }
    if (!source.contains("path")) Fail("{}: a text has no \"path\"", inside);
  }
  return value;
}

// Insertions, deletions, replacements and swaps of neighbours that make one text of the other.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> steps(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        steps[i][j] = i + j;
        continue;
      }
      steps[i][j] = std::min(
          {steps[i - 1][j] + 1, steps[i][j - 1] + 1, steps[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        steps[i][j] = std::min(steps[i][j], steps[i - 2][j - 2] + 1);
    }
  }
  return steps[a.size()][b.size()];
}

std::string_view WithoutDashes(std::string_view name) {
  return name.substr(std::min(name.find_first_not_of('-'), name.size()));
}

// ", did you mean ...?" behind what is not known; empty when nothing is like it.
std::string Suggestion(const std::string& name, const std::vector<std::string>& known) {
  const std::string nearest = NearestName(name, known);
  return nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest);
}

// The number that all of `text` stands for; the text itself when it stands for none.
Json ParseNumber(const std::string& text) {
  const auto parse = [&]<typename T>(T number) -> Json {
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    return read.ec == std::errc() && read.ptr == end ? Json(number) : Json(nullptr);
  };
  for (const Json& number : {parse(int64_t{}), parse(uint64_t{}), parse(double{})}) {
    if (!number.is_null()) return number;
  }
  return text;
}

}  // namespace

std::string NearestName(const std::string& name, const std::vector<std::string>& known) {
  const std::string_view bare = WithoutDashes(name);
  std::string nearest;
  size_t least = bare.size() / 3 + 2;  // as many changes make another word
  for (const std::string& other : known) {
    const std::string_view candidate = WithoutDashes(other);
    size_t distance = EditDistance(bare, candidate);
    // A part of a long name is meant more likely than its letters say.
    if (bare.size() >= 3 && candidate.find(bare) != std::string_view::npos)
      distance = std::min<size_t>(distance, 2);
    if (distance < least) least = distance, nearest = other;
  }
  return nearest;
}

std::optional<bool> ParseTruth(std::string_view word) {
  for (const char* yes : {"true", "yes", "on"}) {
    if (word == yes) return true;
  }
  for (const char* no : {"false", "no", "off"}) {
    if (word == no) return false;
  }
  return std::nullopt;
}

const Option& FindOption(std::span<const Option> options, const std::string& name) {
  const auto found =
      std::find_if(options.begin(), options.end(), [&](const Option& option) { return name == option.name; });
  MICA_CHECK(found != options.end());
  return *found;
}

const Option* OptionOfKey(std::span<const Option> options, const std::string& key) {
  const auto found = std::find_if(options.begin(), options.end(), [&](const Option& option) {
    return *option.one_of != '\0' ? key == option.one_of : key == KeyOf(option);
  });
  return found == options.end() ? nullptr : &*found;
}

std::string KeyOf(const Option& option) {
  if (*option.key != '\0') return option.key;
  std::string key = option.name;
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

Json DefaultOf(const Option& option, const std::string& preset, const std::string& coding) {
  if (preset == "fast" && !option.fast.is_null()) return option.fast;
  if (preset == "best" && !option.best.is_null()) return option.best;
  for (const CodingDefault& with : option.codings) {
    if (coding == with.coding) return with.value;
  }
  return option.value;
}

const Json* ValueIn(const Json& values, const Option& option) {
  const auto found = values.find(*option.one_of != '\0' ? std::string(option.one_of) : KeyOf(option));
  if (found == values.end()) return nullptr;
  if (*option.one_of == '\0') return &*found;
  if (!found->is_object()) return nullptr;
  const auto kind = found->find("kind"), value = found->find("value");
  return kind != found->end() && *kind == option.name && value != found->end() ? &*value : nullptr;
}

Json ValueOf(const Json& values, const Option& option) {
  const Json* given = ValueIn(values, option);
  return given != nullptr ? *given : option.value;
}

void SetValue(Json& values, const Option& option, Json value) {
  if (*option.one_of != '\0') {
    values[option.one_of] = {{"kind", option.name}, {"value", std::move(value)}};
  } else {
    values[KeyOf(option)] = std::move(value);
  }
}

const IdleRule* IdleIn(const Option& option, const Json& settings) {
  for (const IdleRule& rule : option.idle) {
    const Json* value = ValueIn(settings, FindOption(CompressionOptionTable(), rule.option));
    if (value != nullptr && *value == rule.value) return &rule;
  }
  return nullptr;
}

void EraseIdle(Json& settings, const std::string& option) {
  const Json before = settings;
  for (const Option& other : CompressionOptionTable()) {
    const IdleRule* rule = IdleIn(other, before);
    if (rule != nullptr && rule->option == option) settings.erase(KeyOf(other));
  }
}

Json EssentialSettings(const Json& settings) {
  const auto word = [&](const char* name) {
    const Json value = ValueOf(settings, FindOption(CompressionOptionTable(), name));
    return value.is_string() ? value.get<std::string>() : "";
  };
  const std::string preset = word("preset"), coding = word("coding");
  Json essential = settings;
  for (const Option& option : CompressionOptionTable()) {
    const Json* value = ValueIn(settings, option);
    if (value == nullptr) continue;
    const Json usual =
        option.name == std::string("preset") ? option.value : DefaultOf(option, preset, coding);
    if (value->is_null() || *value == usual)
      essential.erase(*option.one_of != '\0' ? std::string(option.one_of) : KeyOf(option));
  }
  // No zeros are asked for, and a mean of 16 bits is width 16 alone.
  if (word("pattern") == "none") essential.erase("pattern");
  const Json* bits = ValueIn(settings, FindOption(CompressionOptionTable(), "bits"));
  if (bits != nullptr && *bits == 16 && settings.value("bit_options", Json()) == Json{16})
    essential.erase("bit_options");
  return essential;
}

Json SettingsLike(const Json& settings, const Json& given, const std::string& where) {
  Json like = EssentialSettings(ReadOptions(CompressionOptionTable(), settings, where));
  // The share of zeros and where they may be: a pattern n:m or none has its own share.
  const std::string pattern = given.value("pattern", "");
  if (given.contains("sparsity")) like.erase("pattern");
  if (pattern == "none" || pattern.find(':') != std::string::npos) like.erase("sparsity");
  const Json inherited = like;
  for (const auto& [key, value] : given.items()) like[key] = value;
  for (const Option& option : CompressionOptionTable()) {
    const std::string key = KeyOf(option);
    if (inherited.contains(key) && !given.contains(key) && IdleIn(option, like) != nullptr) like.erase(key);
  }
  return like;
}

std::string ExpectedText(const Option& option) {
  switch (option.kind) {
    case OptionKind::kNumber:
    case OptionKind::kBytes:
    case OptionKind::kInteger:
      if (!option.integers.empty()) return WithUnit(Alternatives(option.integers), option);
      if (option.above_least)
        return WithUnit(fmt::format("more than {} and at most {}", option.least, option.most), option);
      if (option.below_most)
        return WithUnit(fmt::format("{} or more and less than {}", option.least, option.most), option);
      return WithUnit(fmt::format("{} to {}", option.least, option.most), option);
    case OptionKind::kIntegers:
      return fmt::format("some of {}", fmt::join(option.integers, ", "));
    case OptionKind::kBool:
    case OptionKind::kSwitch:
      return "true or false";
    case OptionKind::kChoice:
      return Alternatives(option.words);
    case OptionKind::kText:
      return "text";
    case OptionKind::kTexts:
      return "texts, none of them empty";
    case OptionKind::kPath:
      return "a path";
    case OptionKind::kSources:
      return "an array of texts";
  }
  return "";
}

std::string ValueText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    std::string list;
    for (const Json& item : value) {
      if (!list.empty()) list += ",";
      list += ValueText(item);
    }
    return list;
  }
  return value.is_number_float() ? fmt::format("{:g}", value.get<double>()) : value.dump();
}

Json CheckedValue(const Option& option, const Json& value, const std::string& where) {
  switch (option.kind) {
    case OptionKind::kBytes:
      return CheckedBytes(option, value, where);
    case OptionKind::kNumber:
      if (!value.is_number()) RefuseType(option, value, where, "a number, ");
      if (!InRange(option, value)) Refuse(option, value, where);
      return value;
    case OptionKind::kInteger:
      return CheckedInteger(option, value, where);
    case OptionKind::kIntegers:
      return CheckedIntegers(option, value, where);
    case OptionKind::kBool:
    case OptionKind::kSwitch:
      if (!value.is_boolean()) RefuseType(option, value, where);
      return value;
    case OptionKind::kChoice:
      if (!value.is_string()) RefuseType(option, value, where);
      {
        Json word = value;
        for (const Spelling& spelling : option.spellings) {
          if (value == spelling.given) word = spelling.word;
        }
        if (std::none_of(option.words.begin(), option.words.end(),
                         [&](const char* known) { return word == known; }))
          Refuse(option, value, where);
        return word;
      }
    case OptionKind::kText:
    case OptionKind::kPath:
      if (!value.is_string()) RefuseType(option, value, where);
      if (value == "" && !option.may_be_empty) Refuse(option, value, where);
      return value;
    case OptionKind::kTexts:
      if (!value.is_array()) RefuseType(option, value, where);
      for (const Json& text : value) {
        if (!text.is_string()) RefuseType(option, text, where);
        if (text.get<std::string>().empty()) Refuse(option, text, where);
      }
      return value;
    case OptionKind::kSources:
      return CheckedSources(option, value, where);
  }
  return value;
}

Json ParseValue(const Option& option, const std::vector<std::string>& texts) {
  MICA_CHECK(option.kind == OptionKind::kIntegers || option.kind == OptionKind::kTexts || texts.size() == 1);
  switch (option.kind) {
    case OptionKind::kNumber:
    case OptionKind::kInteger:
      return CheckedValue(option, ParseNumber(texts[0]));
    case OptionKind::kIntegers: {
      Json list = Json::array();
      for (const std::string& text : texts) list.push_back(ParseNumber(text));
      return CheckedValue(option, list);
    }
    case OptionKind::kBytes:
      if (option.least == 0 && ParseNumber(texts[0]) == 0) return 0.0;
      return CheckedValue(option, static_cast<double>(ParseBytes(texts[0], "--" + std::string(option.name))));
    case OptionKind::kBool:
    case OptionKind::kSwitch: {
      const std::optional<bool> truth = ParseTruth(texts[0]);
      return CheckedValue(option, truth ? Json(*truth) : Json(texts[0]));
    }
    case OptionKind::kChoice:
    case OptionKind::kText:
    case OptionKind::kPath:
      return CheckedValue(option, texts[0]);
    case OptionKind::kTexts:
      return CheckedValue(option, texts);
    case OptionKind::kSources:
      break;
  }
  MICA_CHECK(false);
}

Json ReadOptions(std::span<const Option> options, const Json& json, const std::string& where) {
  if (!json.is_object()) Fail("{}: is {}, expected an object", where, json.type_name());
  std::vector<std::string> known;
  for (const Option& option : options) {
    if (option.place == OptionPlace::kFlag && !where.empty()) continue;
    const std::string key = *option.one_of != '\0' ? std::string(option.one_of) : KeyOf(option);
    if (std::find(known.begin(), known.end(), key) == known.end()) known.push_back(key);
  }
  Json values = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      Fail("{}: unknown key \"{}\"{}, expected one of {}", where, key, Suggestion(key, known),
           fmt::join(known, ", "));
    const Option* option = OptionOfKey(options, key);
    if (*option->one_of == '\0') {
      SetValue(values, *option, CheckedValue(*option, value, where));
      continue;
    }
    // {"kind": which of them, "value": its value}; what is left out is that of the first.
    const std::string inside = fmt::format("{}, \"{}\"", where, key);
    if (!value.is_object()) Fail("{}: is {}, expected an object", inside, value.type_name());
    std::vector<const char*> kinds;
    for (const Option& other : options) {
      if (std::string(other.one_of) == key) kinds.push_back(other.name);
    }
    Json kind = option->name, number = option->value;
    for (const auto& [part, given] : value.items()) {
      if (part != "kind" && part != "value")
        Fail("{}: unknown key \"{}\", expected one of kind, value", inside, part);
      (part == "kind" ? kind : number) = given;
    }
    if (std::none_of(kinds.begin(), kinds.end(), [&](const char* one) { return kind == one; }))
      Fail("{}: {} kind is {}, expected {}", where, key, ShownValue(kind, where), Alternatives(kinds));
    const Option& chosen = FindOption(options, kind.get<std::string>());
    SetValue(values, chosen, CheckedValue(chosen, number, where));
  }
  return values;
}

}  // namespace mica
