// Text inside HTML and SVG.
#pragma once

#include <string>
#include <string_view>

namespace mica {

// Whose characters mean nothing to HTML, in attributes as well.
std::string HtmlText(std::string_view text);

}  // namespace mica
