#include "cli/option_flags.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "io/text/datasets.h"

namespace mica {
namespace {

const char* TypeName(const Option& option) {
  switch (option.kind) {
    case OptionKind::kNumber:
      return "NUMBER";
    case OptionKind::kInteger:
      return "INTEGER";
    case OptionKind::kIntegers:
      return "INTEGERS";
    case OptionKind::kBytes:
      return "BYTES";
    case OptionKind::kBool:
    case OptionKind::kChoice:
      return "WORD";
    case OptionKind::kSwitch:
    case OptionKind::kText:
    case OptionKind::kSources:
      break;
  }
  return "TEXT";
}

// What it is, then range and values of the presets.
std::string Help(const Option& option) {
  const bool plain = option.kind == OptionKind::kText || option.kind == OptionKind::kSources ||
                     option.kind == OptionKind::kSwitch;
  if (plain) return option.help;
  std::string facts = ExpectedText(option);
  if (!option.entropy.is_null()) facts += "; coding entropy: " + ValueText(option.entropy);
  if (!option.fast.is_null()) facts += "; preset fast: " + ValueText(option.fast);
  if (!option.best.is_null()) facts += "; preset best: " + ValueText(option.best);
  return fmt::format("{} ({})", option.help, facts);
}

Json Sources(const Option& option, const std::vector<std::string>& texts) {
  const auto has = [&](std::string_view key) {
    return std::find(option.words.begin(), option.words.end(), key) != option.words.end();
  };
  Json sources = Json::array();
  for (const std::string& text : texts) {
    const DataSpec spec = ParseDataSpec(text, has("weight"));
    Json source = {{"kind", DataKindName(spec.kind)}, {"path", spec.path.string()}};
    if (has("name")) source["name"] = spec.name;
    if (has("weight")) source["weight"] = spec.weight;
    sources.push_back(std::move(source));
  }
  return sources;
}

// "--bits, --bpw and --size".
std::string FlagsOf(std::span<const Option> options, const std::string& one_of) {
  std::vector<std::string> flags;
  for (const Option& option : options) {
    if (option.one_of == one_of) flags.push_back("--" + std::string(option.name));
  }
  const std::string last = flags.back();
  flags.pop_back();
  return fmt::format("{} and {}", fmt::join(flags, ", "), last);
}

Json Parse(const Option& option, const std::vector<std::string>& texts, WrongValue wrong) {
  if (option.kind == OptionKind::kSources) return Sources(option, texts);
  try {
    return ParseValue(option, texts);
  } catch (const Error& error) {
    if (wrong == WrongValue::kIsUsage) throw CLI::ValidationError(error.what());
    throw;
  }
}

}  // namespace

void AddFlags(CLI::App& command, std::span<const Option> options, Json& values, WrongValue wrong) {
  for (const Option& option : options) {
    if (option.place == OptionPlace::kKey) continue;
    const std::string flag = "--" + std::string(option.name);
    if (option.kind == OptionKind::kSwitch) {
      command
          .add_flag_callback(
              flag, [&option, &values] { SetValue(values, option, true); }, Help(option))
          ->group(option.group);
      continue;
    }
    const auto take = [&option, &values, options, wrong](const std::vector<std::string>& texts) {
      if (*option.one_of != '\0' && values.contains(option.one_of))
        Fail("more than one {}; give one of {}", option.one_of, FlagsOf(options, option.one_of));
      SetValue(values, option, Parse(option, texts, wrong));
    };
    CLI::Option* added = option.kind == OptionKind::kSources || option.kind == OptionKind::kIntegers
                             ? command.add_option_function<std::vector<std::string>>(flag, take, Help(option))
                             : command.add_option_function<std::string>(
                                   flag, [take](const std::string& text) { take({text}); }, Help(option));
    added->group(option.group)->type_name(TypeName(option))->required(option.required);
    if (option.kind == OptionKind::kIntegers) added->delimiter(',');
    if (!option.value.is_null()) added->default_str(ValueText(option.value));
  }
}

}  // namespace mica
