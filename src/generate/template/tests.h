// The tests: value is name(arguments).
#pragma once

#include <string_view>

#include "generate/template/arguments.h"
#include "generate/template/value.h"

namespace mica::jinja {

using Test = bool (*)(const Context&, const Value& value, const Arguments& arguments);

// Throws Error naming it and those that are known.
Test TestOf(std::string_view name);

}  // namespace mica::jinja
