// Values at and beyond the borders of an option, made from its row in the table.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "record/options.h"

namespace mica {

// What an option must refuse, and what the refusal must show of it.
struct WrongOptionValue {
  Json value;
  std::string shown;
};

inline bool IsNumberOption(const Option& option) {
  return option.kind == OptionKind::kNumber || option.kind == OptionKind::kInteger ||
         option.kind == OptionKind::kBytes;
}

inline std::vector<WrongOptionValue> WrongValues(const Option& option) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<WrongOptionValue> wrong = {{nullptr, "null"}};
  if (IsNumberOption(option)) {
    const double step = option.kind == OptionKind::kNumber ? 0.5 : 1;
    const double least = option.integers.empty() ? option.least : option.integers.front();
    const double most = option.integers.empty() ? option.most : option.integers.back();
    const auto add = [&](const Json& value) {
      wrong.push_back({value, ValueText(value)});
      if (value.is_number_float()) wrong.back().shown = fmt::format("{}", value.get<double>());
    };
    add(least - step);
    add(-3);
    add(most < 1e15 ? most + step : 2 * most);
    add(kNan);
    add(kInfinity);
    add(-kInfinity);
    add(9007199254740993);  // 2^53 + 1
    add(1e300);
    if (option.above_least) add(least);
    if (option.below_most) add(most);
    if (option.kind == OptionKind::kInteger) add(2.9);
    wrong.push_back({"4", "4"});
    wrong.push_back({"much", "much"});
    wrong.push_back({true, "true"});
    wrong.push_back({Json::array({4}), "[4]"});
    wrong.push_back({Json::object(), "{}"});
  }
  if (option.kind == OptionKind::kIntegers) {
    wrong.push_back({Json::array(), "empty"});
    for (const double item : {-1.0, 260.0, 2.9, kNan, kInfinity, 9007199254740993.0})
      wrong.push_back({Json::array({2, item}), fmt::format("{}", item)});
    wrong.push_back({{2, "4"}, "4"});
    wrong.push_back({{2, true}, "true"});
    wrong.push_back({{4, 2, 4}, "4 twice"});
    wrong.push_back({{4, 4.0}, "4 twice"});
    wrong.push_back({4, "4"});
    wrong.push_back({"2,4", "2,4"});
  }
  if (option.kind == OptionKind::kBool || option.kind == OptionKind::kSwitch) {
    for (const Json& value : {Json(1), Json(0), Json("true"), Json(0.5)})
      wrong.push_back({value, ValueText(value)});
  }
  if (option.kind == OptionKind::kChoice) {
    wrong.push_back({"", ""});
    wrong.push_back({"other", "other"});
    wrong.push_back({0, "0"});
    wrong.push_back({true, "true"});
  }
  if (option.kind == OptionKind::kBytes) wrong.push_back({2.5, "2.5"});
  if (option.kind == OptionKind::kText || option.kind == OptionKind::kPath) {
    wrong.push_back({4, "4"});
    if (!option.may_be_empty) wrong.push_back({"", ""});
  }
  if (option.kind == OptionKind::kTexts) {
    wrong.push_back({"text", "text"});
    wrong.push_back({{"text", ""}, ""});
    wrong.push_back({{"text", 4}, "4"});
  }
  if (option.kind == OptionKind::kSources) wrong.push_back({"text=FILE", "text=FILE"});
  return wrong;
}

// Values that are just in range, or all of them where they are few.
inline std::vector<Json> Borders(const Option& option) {
  switch (option.kind) {
    case OptionKind::kNumber:
      return {option.above_least ? std::nextafter(option.least, option.most) : option.least,
              option.below_most ? std::nextafter(option.most, option.least) : option.most};
    case OptionKind::kInteger:
      if (!option.integers.empty()) return {option.integers.front(), option.integers.back()};
      return {static_cast<int64_t>(option.least), static_cast<int64_t>(option.most), option.least};
    case OptionKind::kBytes:
      return {option.least, option.most};
    case OptionKind::kIntegers:
      return {Json::array({option.integers.front()}), Json(option.integers)};
    case OptionKind::kBool:
    case OptionKind::kSwitch:
      return {true, false};
    case OptionKind::kChoice:
      return std::vector<Json>(option.words.begin(), option.words.end());
    case OptionKind::kText:
    case OptionKind::kPath:
      return {option.value.is_string() ? option.value : Json("cpu")};
    case OptionKind::kTexts:
      return {Json::array({"a text"})};
    case OptionKind::kSources:
      return {Json::array({{{"kind", "text"}, {"path", "FILE"}}})};
  }
  return {};
}

}  // namespace mica
