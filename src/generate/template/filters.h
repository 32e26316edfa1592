// The filters: value|name(arguments).
#pragma once

#include <string_view>

#include "generate/template/arguments.h"
#include "generate/template/value.h"

namespace mica::jinja {

using Filter = Value (*)(const Context&, const Value& value, const Arguments& arguments);

// Throws Error naming it and those that are known.
Filter FilterOf(std::string_view name);

}  // namespace mica::jinja
