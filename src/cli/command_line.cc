#include "cli/command_line.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "base/system.h"
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
    case OptionKind::kPath:
      return "PATH";
    case OptionKind::kSwitch:
    case OptionKind::kText:
    case OptionKind::kTexts:
    case OptionKind::kSources:
      break;
  }
  return "TEXT";
}

// What it is, then range and values of the presets.
std::string Help(const Option& option) {
  const bool plain = option.kind == OptionKind::kText || option.kind == OptionKind::kTexts || option.kind == OptionKind::kPath ||
                     option.kind == OptionKind::kSources || option.kind == OptionKind::kSwitch;
  if (plain) return option.help;
  std::string facts = ExpectedText(option);
  for (size_t i = 0; i < option.codings.size(); ++i) {
    // Those of one value follow one another.
    const CodingDefault& with = option.codings[i];
    const bool goes_on = i > 0 && option.codings[i - 1].value == with.value,
               last = i + 1 == option.codings.size() || option.codings[i + 1].value != with.value;
    facts += (goes_on ? ", " : "; coding ") + std::string(with.coding);
    if (last) facts += ": " + ValueText(with.value);
  }
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

Json Parse(const Option& option, const std::vector<std::string>& texts) {
  return option.kind == OptionKind::kSources ? Sources(option, texts) : ParseValue(option, texts);
}

// "-o,--output"; a switch that is on by itself has an opposite.
std::string FlagText(const Option& option, const char* name) {
  std::string text = *option.letter != '\0' ? fmt::format("-{},", option.letter) : "";
  text += fmt::format("--{}", name);
  if (option.kind == OptionKind::kSwitch && option.value == true) text += fmt::format(",!--no-{}", name);
  return text;
}

// The flag of an option under one of its names. take: called with the texts that were given.
CLI::Option& AddFlag(CLI::App& command, const Option& option, const char* name,
                     const std::function<void(const std::vector<std::string>&)>& take) {
  const std::string flag = FlagText(option, name), help = Help(option);
  if (option.kind == OptionKind::kSwitch) {
    // Of the library's flags only the check sees what was given.
    return *command.add_flag(flag, help)->check([take](const std::string& text) {
      take({text});
      return std::string();
    });
  }
  const bool list = option.kind == OptionKind::kSources || option.kind == OptionKind::kIntegers ||
                    option.kind == OptionKind::kTexts;
  CLI::Option& added = *command.add_option(
      flag,
      [&option, list, take](const std::vector<std::string>& texts) {
        if (!list && texts.size() > 1) Fail("--{} is given twice", option.name);
        take(texts);
        return true;
      },
      help);
  added.type_name(TypeName(option))->type_size(1)->expected(list ? -1 : 1);
  added.multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (option.kind == OptionKind::kIntegers) added.delimiter(',');
  if (!option.value.is_null()) added.default_str(ValueText(option.value));
  return added;
}

std::vector<std::string> LongNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_group().empty()) continue;
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string DidYouMean(const std::string& name, const std::vector<std::string>& known) {
  const std::string nearest = NearestName(name, known);
  return nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
}

// The first of the arguments that nothing takes, an option before others.
std::string Unexpected(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining(true);
  const auto option = std::find_if(left.begin(), left.end(), [](const std::string& argument) {
    return argument.size() > 1 && argument[0] == '-' && argument != "--";
  });
  if (option != left.end()) return option->substr(0, option->find('='));
  return left.empty() ? "" : left.front();
}

void AddFlags(CLI::App& command, const FlagTable& table) {
  for (const Option& option : table.options) {
    if (option.place == OptionPlace::kKey) continue;
    const auto take = [&option, &values = *table.values,
                       options = table.options](const std::vector<std::string>& texts) {
      if (*option.one_of != '\0' && values.contains(option.one_of))
        Fail("more than one {}; give one of {}", option.one_of, FlagsOf(options, option.one_of));
      if (option.kind != OptionKind::kSwitch && ValueIn(values, option) != nullptr)
        Fail("--{} is given twice", option.name);
      SetValue(values, option, Parse(option, texts));
    };
    AddFlag(command, option, option.name, take).group(option.group)->required(option.required);
    for (const char* old : option.old_names) AddFlag(command, option, old, take).group("");
  }
}

void AddCommand(CLI::App& app, const Subcommand& command) {
  CLI::App& added = *app.add_subcommand(command.name, command.help);
  for (const Argument& argument : command.arguments) {
    CLI::Option* option = argument.values != nullptr
                              ? added.add_option(argument.name, *argument.values, argument.help)
                              : added.add_option(argument.name, *argument.value, argument.help);
    option->required(argument.required);
  }
  for (const FlagTable& table : command.flags) AddFlags(added, table);
}

// What is wrong with a command line that the parser does not take.
std::string UsageText(const CLI::App& app, const CLI::ParseError& failure) {
  const std::vector<CLI::App*> commands = app.get_subcommands();
  const CLI::App& command = commands.empty() ? app : *commands.front();
  const std::string see =
      fmt::format("; see '{} --help'", commands.empty() ? "mica" : "mica " + command.get_name());
  const std::string text = failure.what();
  const std::string unexpected = Unexpected(app);
  if (unexpected.starts_with('-')) {
    const std::vector<std::string> known = LongNames(command);
    if (std::find(known.begin(), known.end(), unexpected) != known.end())
      return fmt::format("{} stands before the command; give it behind{}", unexpected, see);
    return fmt::format("unknown option {}{}{}", unexpected, DidYouMean(unexpected, known), see);
  }
  if (commands.empty()) {
    if (unexpected.empty()) return "no command is given" + see;
    std::vector<std::string> known;
    for (const CLI::App* one : app.get_subcommands([](const CLI::App*) { return true; }))
      known.push_back(one->get_name());
    return fmt::format("unknown command {}{}{}", unexpected, DidYouMean(unexpected, known), see);
  }
  if (!unexpected.empty()) return fmt::format("{} is more than the command takes{}", unexpected, see);
  const auto upto = [&](const char* mark) { return text.substr(0, text.find(mark)); };
  if (dynamic_cast<const CLI::RequiredError*>(&failure) != nullptr)
    return fmt::format("{} is missing{}", upto(" is required"), see);
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&failure) != nullptr)
    return fmt::format("{} is given without a value{}", upto(":"), see);
  return text + see;
}

}  // namespace

const Subcommand* ParseCommandLine(std::span<const Subcommand> commands, int argc, char** argv) {
  CLI::App app{"mica compresses LLaMA-family language models by mutual information and proves what it did."};
  app.name("mica");
  app.set_version_flag("--version", "mica " + Version() + " (" + Commit() + ")");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  for (const Subcommand& command : commands) AddCommand(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    std::ostringstream text;
    app.exit(request, text, text);
    WriteStdout(text.str());
    return nullptr;
  } catch (const CLI::ParseError& failure) {
    throw UsageError(UsageText(app, failure));
  }
  const std::string name = app.get_subcommands().front()->get_name();
  return &*std::find_if(commands.begin(), commands.end(),
                        [&](const Subcommand& command) { return command.name == name; });
}

}  // namespace mica
