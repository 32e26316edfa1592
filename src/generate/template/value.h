// The values of a template: those of JSON, and what templates make besides. All but namespaces are immutable,
// as in transformers' sandbox, and behave as Python's values do.
#pragma once

#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "generate/template/budget.h"
#include "generate/template/text.h"

namespace mica::jinja {

struct List;
struct Dict;
struct Namespace;
struct LoopState;
struct Callable;

// A name that has no value: prints nothing; its attributes are an Error, which says `what` ("'x' is
// undefined").
struct Undefined {
  std::shared_ptr<const std::string> what;
  bool operator==(const Undefined&) const { return true; }
};
struct None {
  bool operator==(const None&) const = default;
};

using Value =
    std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                 std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                 std::shared_ptr<const LoopState>, std::shared_ptr<const Callable>>;

struct List {
  enum class Kind {
    kList,
    kTuple,
    kRange,
    kView,      // items(), keys() and values() of a dict: counted, but without elements by number
    kGenerator  // what select, map and the like give: always true, without length, read once
  };
  Kind kind;
  std::vector<Value> items;
  int depth;                 // 1 + that of its deepest element
  mutable size_t taken = 0;  // elements of a generator that were read
  Holding holding;
};

// In the order in which keys came. Keys are texts, numbers, true and false, and none.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth;
  Holding holding;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> values;
  Holding holding;
};

// What `loop` is.
struct LoopState {
  std::shared_ptr<const List> items;
  size_t index0 = 0;
  int depth0 = 0;
};

struct Macro;  // evaluator.h

struct Callable {
  enum class Kind { kFunction, kMethod, kMacro };
  Kind kind;
  std::string name;
  Value self = None();  // of a method
  std::shared_ptr<const Macro> macro = nullptr;
};

// What making values needs.
struct Context {
  std::shared_ptr<Budget> budget;
  std::time_t now = 0;

  Value New(Text text) const;
  Value New(std::string text) const { return New(Text(std::move(text))); }
  // Throws Error when it is nested too deeply.
  Value New(std::vector<Value> items, List::Kind kind = List::Kind::kList) const;
  Value New(std::vector<std::pair<Value, Value>> items) const;
};
Value MakeUndefined(std::string what);

// Texts of `json` are marked as content.
enum class Marks {
  kNone,
  kAll,
  kMessages  // all, but for those under the key "role" of the objects in the array
};
// Throws Error for numbers beyond 64 bits.
Value FromJson(const Context& context, const Json& json, Marks marks);

template <typename T>
const T* As(const Value& value) {
  if (const auto* pointer = std::get_if<std::shared_ptr<const T>>(&value)) return pointer->get();
  return nullptr;
}
inline bool IsUndefined(const Value& value) { return std::holds_alternative<Undefined>(value); }
inline bool IsNone(const Value& value) { return std::holds_alternative<None>(value); }
// A whole number, true and false as 1 and 0.
std::optional<int64_t> WholeOf(const Value& value);
// A number of any kind.
std::optional<double> NumberOf(const Value& value);
bool IsOfKind(const Value& value, List::Kind kind);

// "text", "number", "list", ... for messages.
std::string KindOf(const Value& value);
// Throws Error with what an undefined value says.
[[noreturn]] void RefuseUndefined(const Value& value);

bool Truth(const Value& value);
bool Equal(const Context& context, const Value& a, const Value& b);
// a < b, a <= b. Throws Error for values that have no order.
bool Less(const Context& context, const Value& a, const Value& b);
bool LessOrEqual(const Context& context, const Value& a, const Value& b);
// Whether `container` holds `value`: a part of a text, an element, a key.
bool Contains(const Context& context, const Value& container, const Value& value);
// The elements that `for` sees: of a text its characters, of a dict its keys. Takes those of a generator.
// Throws Error for what has none.
std::vector<Value> Elements(const Context& context, const Value& value);
// Throws Error for what has none.
int64_t Length(const Context& context, const Value& value);
// The value under the key, or null.
const Value* Find(const Context& context, const Dict& dict, const Value& key);
const Value* Find(const Context& context, const Dict& dict, std::string_view key);
// Sets a key as Python's dict does: one that is there keeps its place. Throws Error for keys that have no
// hash (lists, dicts).
void Put(const Context& context, std::vector<std::pair<Value, Value>>& items, Value key, Value value);

// Python's str() and repr().
Text ToText(const Context& context, const Value& value);
Text Repr(const Context& context, const Value& value);
std::string FloatText(double value);

// Python's json.dumps(value, ensure_ascii=False, ...), as transformers' templates have it.
struct JsonStyle {
  std::optional<std::string> indent;  // of one level
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
Text ToJson(const Context& context, const Value& value, const JsonStyle& style);

}  // namespace mica::jinja
