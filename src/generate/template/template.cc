#include "generate/template/template.h"

#include <map>
#include <utility>

#include "base/error.h"
#include "generate/template/evaluator.h"
#include "generate/template/parser.h"

namespace mica::jinja {

struct Template::Tree {
  Block block;
};

Template::Template(std::string_view source, std::string where)
    : tree_(std::make_unique<const Tree>(Tree{ParseTemplate(source, where)})), where_(std::move(where)) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Text Template::Render(const std::vector<Variable>& variables, std::time_t now, const Limits& limits) const {
  const Context context{std::make_shared<Budget>(limits), now != 0 ? now : std::time(nullptr)};
  std::map<std::string, Value, std::less<>> values;
  for (const Variable& variable : variables) {
    try {
      values[variable.name] = FromJson(context, variable.value, variable.marks);
    } catch (const Error& failure) {
      Fail("{}: variable '{}': {}", where_, variable.name, failure.what());
    }
  }
  return Evaluate(tree_->block, std::move(values), context, where_);
}

}  // namespace mica::jinja
