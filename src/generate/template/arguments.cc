#include "generate/template/arguments.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace mica::jinja {

Bound::Bound(const std::string& what, const Arguments& arguments,
             std::initializer_list<std::string_view> parameters, size_t required)
    : what_(what), names_(parameters), values_(parameters.size()) {
  if (arguments.positional.size() > names_.size())
    Fail("{} has {} arguments, expected at most {}", what_, arguments.positional.size(), names_.size());
  std::copy(arguments.positional.begin(), arguments.positional.end(), values_.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find(names_.begin(), names_.end(), name);
    if (at == names_.end()) Fail("{} has no argument '{}'", what_, Printable(name, 40));
    std::optional<Value>& bound = values_[static_cast<size_t>(at - names_.begin())];
    if (bound) Fail("{} has argument '{}' twice", what_, name);
    bound = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!values_[i]) Fail("{} lacks argument '{}'", what_, names_[i]);
  }
}

void Bound::Refuse(size_t i, const char* expected) const {
  Fail("{}: argument '{}' is {}, expected {}", what_, names_[i], KindOf(*values_[i]), expected);
}

bool Bound::Flag(size_t i, bool otherwise) const { return Has(i) ? Truth(*values_[i]) : otherwise; }

int64_t Bound::Whole(size_t i, int64_t otherwise) const {
  if (!Has(i)) return otherwise;
  const std::optional<int64_t> whole = WholeOf(*values_[i]);
  if (!whole) Refuse(i, "a whole number");
  return *whole;
}

Text Bound::TextOr(size_t i, std::string_view otherwise) const {
  if (!Has(i)) return Text(std::string(otherwise));
  const Text* text = As<Text>(*values_[i]);
  if (text == nullptr) Refuse(i, "a text");
  return *text;
}

}  // namespace mica::jinja
