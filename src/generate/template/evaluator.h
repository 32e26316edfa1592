// Runs a template.
#pragma once

#include <map>
#include <string>

#include "generate/template/syntax.h"
#include "generate/template/value.h"

namespace mica::jinja {

// The text that `block` writes with these variables. Throws Error, and Refusal where the template does so,
// with `where` and the line in front.
Text Evaluate(const Block& block, std::map<std::string, Value, std::less<>> variables, const Context& context,
              const std::string& where);

}  // namespace mica::jinja
