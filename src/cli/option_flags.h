// Tables of options (record/options.h) as flags of a command.
#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string>

#include "base/json.h"
#include "record/options.h"

namespace mica {

// How a value is refused that its option cannot have.
enum class WrongValue {
  kFails,   // Error: exit code 1
  kIsUsage  // as an unknown flag is: exit code 2
};

// Gives `command` the flags of a table, each with its default and range in the help, under its group. What is
// given on the command line is checked and put into `values`, a flat object of keys as in an experiment file;
// it must live as long as the command.
void AddFlags(CLI::App& command, std::span<const Option> options, Json& values,
              WrongValue wrong = WrongValue::kFails);

// What is wrong with a command line that the parser does not take, in one line and in words of our own.
std::string UsageText(const CLI::App& app, const CLI::ParseError& failure);

}  // namespace mica
