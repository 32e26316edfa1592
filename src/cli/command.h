// A command as a value: what it takes and what it does. cli/command_line.h makes a command line of them.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "record/options.h"

namespace mica {

// The command line asks for something that the command does not offer or leaves out what it needs: exit
// code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

// A path that belongs to the command itself: "model" by its position, "--like" as a flag.
struct Argument {
  const char* name;
  std::filesystem::path* value;
  const char* help;
  bool required = true;
  std::vector<std::filesystem::path>* values = nullptr;  // where several may be given, in place of `value`
};

// A table of options as flags, each with its default and range in the help, under its group. What is given is
// checked and put into `values`, a flat object of keys as in an experiment file.
struct FlagTable {
  std::span<const Option> options;
  Json* values;
};

// What the pointers name must live as long as the command.
struct Subcommand {
  std::string name, help;
  std::vector<Argument> arguments;
  std::vector<FlagTable> flags;
  std::function<void()> run;
};

}  // namespace mica
