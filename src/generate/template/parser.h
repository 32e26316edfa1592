// Tokens to a tree, by Jinja's grammar.
#pragma once

#include <string>
#include <string_view>

#include "generate/template/syntax.h"

namespace mica::jinja {

// `source` must be valid UTF-8. Throws Error naming `where`, the line, what was found and what is known: for
// tags, and, outside of branches that may not be taken, for filters and tests.
Block ParseTemplate(std::string_view source, const std::string& where);

}  // namespace mica::jinja
