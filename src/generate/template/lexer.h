// A template as tokens: the text between tags after whitespace control (trim_blocks and lstrip_blocks on, as
// transformers has them), and what stands in tags.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mica::jinja {

struct Token {
  enum class Kind {
    kText,         // outside of tags
    kOutputBegin,  // {{
    kOutputEnd,    // }}
    kTagBegin,     // {%
    kTagEnd,       // %}
    kName,
    kString,  // text: its value
    kWhole,   // text: digits without underscores, "0x" and the like as written
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  std::string text;
  int line;
};

// `where` stands in front of errors ("chat template"). `source` must be valid UTF-8. Throws Error with the
// line.
std::vector<Token> Tokenize(std::string_view source, const std::string& where);

}  // namespace mica::jinja
