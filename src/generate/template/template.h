// Templates in the part of the Jinja language that chat templates use, rendered as transformers renders them.
//
// Known: {{ }}, {% for if set macro with raw generation break continue %}, {# #}, whitespace control with
// trim_blocks and lstrip_blocks on; expressions, filters (filters.cc), tests (tests.cc), methods of texts and
// dicts and functions (methods.cc). What is not known is an Error by name with its line. Values behave as
// Python's; where they cannot, that is an Error, too: whole numbers have 64 bits, "safe" marks nothing
// (nothing is escaped).
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "generate/template/budget.h"
#include "generate/template/value.h"

namespace mica::jinja {

struct Variable {
  std::string name;
  Json value;
  Marks marks = Marks::kNone;
};

class Template {
 public:
  // `where` names the template in errors ("DIR/tokenizer_config.json: chat_template"). Throws Error, with the
  // line, for what is no template, for what is not known, and for sources of more than 1 MiB.
  Template(std::string_view source, std::string where);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // The text, with the marks of the variables' texts kept through all that the template does to them. `now`:
  // the time of strftime_now, 0 for this moment. The same for any number of threads at once. Throws Error
  // with the line: what cannot be evaluated, and what passes a limit; Refusal (refusal.h) for
  // raise_exception.
  Text Render(const std::vector<Variable>& variables, std::time_t now = 0, const Limits& limits = {}) const;

 private:
  struct Tree;
  std::unique_ptr<const Tree> tree_;
  std::string where_;
};

}  // namespace mica::jinja
