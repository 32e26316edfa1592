#include "generate/template/tests.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/access.h"

namespace mica::jinja {
namespace {

const Value& Other(const char* name, const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty())
    Fail("test '{}' takes one argument", name);
  return arguments.positional[0];
}

int64_t CheckedWhole(const char* name, const Value& value) {
  if (IsUndefined(value)) RefuseUndefined(value);
  const std::optional<int64_t> whole = WholeOf(value);
  if (!whole) Fail("test '{}' has {}, expected a whole number", name, KindOf(value));
  return *whole;
}

int64_t Rest(const char* name, const Value& value, int64_t divisor) {
  if (divisor == 0) Fail("test '{}': division by zero", name);
  return divisor == -1 ? 0 : CheckedWhole(name, value) % divisor;
}

struct Named {
  std::string_view name;
  Test test;
};

using C = const Context&;
using V = const Value&;
using A = const Arguments&;

const Named kTests[] = {
    {"defined", [](C, V v, A) { return !IsUndefined(v); }},
    {"undefined", [](C, V v, A) { return IsUndefined(v); }},
    {"none", [](C, V v, A) { return IsNone(v); }},
    {"boolean", [](C, V v, A) { return std::holds_alternative<bool>(v); }},
    {"true", [](C, V v, A) { return std::holds_alternative<bool>(v) && std::get<bool>(v); }},
    {"false", [](C, V v, A) { return std::holds_alternative<bool>(v) && !std::get<bool>(v); }},
    {"integer", [](C, V v, A) { return std::holds_alternative<int64_t>(v); }},
    {"float", [](C, V v, A) { return std::holds_alternative<double>(v); }},
    {"number", [](C, V v, A) { return NumberOf(v).has_value(); }},
    {"string", [](C, V v, A) { return As<Text>(v) != nullptr; }},
    {"mapping", [](C, V v, A) { return As<Dict>(v) != nullptr; }},
    {"iterable",
     [](C, V v, A) {
       return IsUndefined(v) || As<Text>(v) != nullptr || As<List>(v) != nullptr || As<Dict>(v) != nullptr ||
              As<LoopState>(v) != nullptr;
     }},
    {"sequence",
     [](C, V v, A) {
       const List* list = As<List>(v);
       return IsUndefined(v) || As<Text>(v) != nullptr || As<Dict>(v) != nullptr ||
              (list != nullptr && list->kind <= List::Kind::kRange);
     }},
    {"callable", [](C, V v, A) { return As<Callable>(v) != nullptr || IsUndefined(v); }},
    {"sameas",
     [](C c, V v, A a) {
       V other = Other("sameas", a);
       if (As<Text>(v) != nullptr) Fail("test 'sameas' of a text is not known; use '=='");
       return v.index() == other.index() &&
              (v.index() <= 4 ? Equal(c, v, other)
                              : As<List>(v) == As<List>(other) && As<Dict>(v) == As<Dict>(other) &&
                                    (As<List>(v) != nullptr || As<Dict>(v) != nullptr || Equal(c, v, other)));
     }},
    {"in", [](C c, V v, A a) { return Contains(c, Other("in", a), v); }},
    {"eq", [](C c, V v, A a) { return Equal(c, v, Other("eq", a)); }},
    {"equalto", [](C c, V v, A a) { return Equal(c, v, Other("equalto", a)); }},
    {"==", [](C c, V v, A a) { return Equal(c, v, Other("==", a)); }},
    {"ne", [](C c, V v, A a) { return !Equal(c, v, Other("ne", a)); }},
    {"!=", [](C c, V v, A a) { return !Equal(c, v, Other("!=", a)); }},
    {"lt", [](C c, V v, A a) { return Less(c, v, Other("lt", a)); }},
    {"lessthan", [](C c, V v, A a) { return Less(c, v, Other("lessthan", a)); }},
    {"<", [](C c, V v, A a) { return Less(c, v, Other("<", a)); }},
    {"le", [](C c, V v, A a) { return LessOrEqual(c, v, Other("le", a)); }},
    {"<=", [](C c, V v, A a) { return LessOrEqual(c, v, Other("<=", a)); }},
    {"gt", [](C c, V v, A a) { return Less(c, Other("gt", a), v); }},
    {"greaterthan", [](C c, V v, A a) { return Less(c, Other("greaterthan", a), v); }},
    {">", [](C c, V v, A a) { return Less(c, Other(">", a), v); }},
    {"ge", [](C c, V v, A a) { return LessOrEqual(c, Other("ge", a), v); }},
    {">=", [](C c, V v, A a) { return LessOrEqual(c, Other(">=", a), v); }},
    {"odd", [](C, V v, A) { return Rest("odd", v, 2) != 0; }},
    {"even", [](C, V v, A) { return Rest("even", v, 2) == 0; }},
    {"divisibleby",
     [](C, V v, A a) {
       return Rest("divisibleby", v, CheckedWhole("divisibleby", Other("divisibleby", a))) == 0;
     }},
    {"upper", [](C c, V v, A) { return IsUpper(ToText(c, v).bytes()); }},
    {"lower", [](C c, V v, A) { return IsLower(ToText(c, v).bytes()); }},
};

}  // namespace

Test TestOf(std::string_view name) {
  for (const Named& one : kTests) {
    if (one.name == name) return one.test;
  }
  std::vector<std::string_view> known;
  for (const Named& one : kTests) known.push_back(one.name);
  Fail("test '{}' is not known; known are {}", Printable(name, 40), fmt::join(known, ", "));
}

}  // namespace mica::jinja
