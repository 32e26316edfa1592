#include "generate/template/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/access.h"
#include "generate/template/tests.h"
#include "generate/template/text_tools.h"

namespace mica::jinja {
namespace {

using C = const Context&;
using V = const Value&;
using A = const Arguments&;
using Parameters = std::initializer_list<std::string_view>;

// ---- attributes of elements, as map, sort and the like take them

// "a.b.0" of a value; undefined where a part is missing.
Value Path(C context, V value, V attribute) {
  Value found = value;
  if (const Text* path = As<Text>(attribute)) {
    for (size_t begin = 0; begin <= path->size();) {
      const size_t end = std::min(path->bytes().find('.', begin), path->size());
      const std::string part = path->bytes().substr(begin, end - begin);
      int64_t number = 0;
      const auto [stop, failure] = std::from_chars(part.data(), part.data() + part.size(), number);
      const bool whole = failure == std::errc() && stop == part.data() + part.size() && part[0] != '-';
      found = Item(context, found, whole ? Value(number) : context.New(part));
      begin = end + 1;
    }
    return found;
  }
  return Item(context, value, attribute);
}

Value Caseless(C context, const Value& value, bool case_sensitive) {
  const Text* text = As<Text>(value);
  return text == nullptr || case_sensitive ? value : context.New(Lower(*text));
}

// What elements are sorted or told apart by: themselves or an attribute ("a" or "a,b").
Value KeyOf(C context, V element, const Bound& bound, size_t attribute, bool case_sensitive) {
  if (bound.IsNone(attribute)) return Caseless(context, element, case_sensitive);
  const Text* paths = As<Text>(bound[attribute]);
  if (paths == nullptr || paths->bytes().find(',') == std::string::npos)
    return Caseless(context, Path(context, element, bound[attribute]), case_sensitive);
  std::vector<Value> keys;
  for (size_t begin = 0; begin <= paths->size();) {
    const size_t end = std::min(paths->bytes().find(',', begin), paths->size());
    keys.push_back(
        Caseless(context, Path(context, element, context.New(paths->Part(begin, end))), case_sensitive));
    begin = end + 1;
  }
  return context.New(std::move(keys));
}

// Stable. Values without an order are an Error.
std::vector<Value> Sorted(C context, std::vector<std::pair<Value, Value>> keyed, bool reverse) {
  // By merging, which asks for few comparisons and stands an exception in any of them.
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? Less(context, b.first, a.first) : Less(context, a.first, b.first);
  });
  std::vector<Value> sorted;
  for (auto& [key, value] : keyed) sorted.push_back(std::move(value));
  return sorted;
}

// ---- select, reject and map

Arguments Behind(A arguments, size_t count) {
  Arguments rest{{}, arguments.named};
  if (arguments.positional.size() > count)
    rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(count),
                           arguments.positional.end());
  return rest;
}

std::string NameAt(const char* filter, A arguments, size_t i, const char* what) {
  const Text* name = As<Text>(arguments.positional[i]);
  if (name == nullptr)
    Fail("filter '{}': {} is {}, expected a text", filter, what, KindOf(arguments.positional[i]));
  return name->bytes();
}

Value Selected(C context, V value, A arguments, const char* filter, bool by_attribute, bool keep) {
  const size_t test_at = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty())
    Fail("filter '{}' lacks the name of an attribute", filter);
  Test test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > test_at) {
    test = TestOf(NameAt(filter, arguments, test_at, "the test"));
    rest = Behind(arguments, test_at + 1);
  }
  std::vector<Value> selected;
  if (!Truth(value)) return context.New(std::move(selected), List::Kind::kGenerator);
  for (const Value& element : Elements(context, value)) {
    const Value looked_at = by_attribute ? Path(context, element, arguments.positional[0]) : element;
    if ((test == nullptr ? Truth(looked_at) : test(context, looked_at, rest)) == keep)
      selected.push_back(element);
  }
  return context.New(std::move(selected), List::Kind::kGenerator);
}

Value Map(C context, V value, A arguments) {
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    const Bound bound("filter 'map'", arguments, {"attribute", "default"}, 1);
    if (Truth(value)) {
      for (const Value& element : Elements(context, value)) {
        Value found = Path(context, element, bound[0]);
        if (IsUndefined(found) && bound.Has(1)) found = bound[1];
        mapped.push_back(std::move(found));
      }
    }
  } else {
    const Filter filter = FilterOf(NameAt("map", arguments, 0, "the filter"));
    const Arguments rest = Behind(arguments, 1);
    if (Truth(value)) {
      for (const Value& element : Elements(context, value)) mapped.push_back(filter(context, element, rest));
    }
  }
  return context.New(std::move(mapped), List::Kind::kGenerator);
}

// ---- numbers

// A whole number of Python's int(text, base).
std::optional<int64_t> ParsedWhole(std::string text, int64_t base) {
  const Extent extent = Stripped(text, true, true);
  text = text.substr(extent.begin, extent.end - extent.begin);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.erase(0, 1);
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.erase(0, 2);
  if (base == 8 && (text.starts_with("0o") || text.starts_with("0O"))) text.erase(0, 2);
  if (base == 2 && (text.starts_with("0b") || text.starts_with("0B"))) text.erase(0, 2);
  if (text.starts_with('_') || text.ends_with('_') || text.find("__") != std::string::npos)
    return std::nullopt;
  std::erase(text, '_');
  if (text.empty() || text[0] == '-') return std::nullopt;
  int64_t number = 0;
  if (negative) text.insert(0, "-");
  const auto [end, failure] =
      std::from_chars(text.data(), text.data() + text.size(), number, static_cast<int>(base));
  if (end != text.data() + text.size()) return std::nullopt;
  if (failure == std::errc::result_out_of_range) Fail("filter 'int': the number is beyond 64 bits");
  if (failure != std::errc()) return std::nullopt;
  return number;
}

std::optional<double> ParsedFloat(std::string text) {
  const Extent extent = Stripped(text, true, true);
  text = text.substr(extent.begin, extent.end - extent.begin);
  if (text.starts_with('+')) {
    text.erase(0, 1);
    if (text.starts_with('-')) return std::nullopt;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] == '_' && (i == 0 || !digit(i - 1) || !digit(i + 1))) return std::nullopt;
    if (text[i] == '(') return std::nullopt;  // "nan(...)"
  }
  std::erase(text, '_');
  double number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (end != text.data() + text.size() || text.empty()) return std::nullopt;
  if (failure == std::errc::result_out_of_range) return std::strtod(text.c_str(), nullptr);
  if (failure != std::errc()) return std::nullopt;
  return number;
}

int64_t Truncated(double number) {
  if (!(number >= -9223372036854775808.0 && number < 9223372036854775808.0))
    Fail("filter 'int': {} is beyond 64 bits", FloatText(number));
  return static_cast<int64_t>(number);
}

Value Int(C context, V value, A arguments) {
  const Bound bound("filter 'int'", arguments, {"default", "base"});
  const Value otherwise = bound.Has(0) ? bound[0] : Value(int64_t{0});
  if (IsUndefined(value)) RefuseUndefined(value);
  if (const auto whole = WholeOf(value)) return *whole;
  if (const auto number = NumberOf(value)) {
    if (!std::isfinite(*number)) Fail("filter 'int': {} is no whole number", FloatText(*number));
    return Truncated(*number);
  }
  const Text* text = As<Text>(value);
  if (text == nullptr) return otherwise;
  const int64_t base = bound.Whole(1, 10);
  if (base != 2 && base != 8 && base != 10 && base != 16)
    Fail("filter 'int': base {} is not known; known are 2, 8, 10 and 16", base);
  context.budget->Read(text->size());
  if (const auto whole = ParsedWhole(text->bytes(), base)) return *whole;
  const std::optional<double> number = ParsedFloat(text->bytes());
  if (!number || std::isnan(*number)) return otherwise;
  if (std::isinf(*number)) Fail("filter 'int': {} is no whole number", FloatText(*number));
  return Truncated(*number);
}

Value Float(C context, V value, A arguments) {
  const Bound bound("filter 'float'", arguments, {"default"});
  const Value otherwise = bound.Has(0) ? bound[0] : Value(0.0);
  if (IsUndefined(value)) RefuseUndefined(value);
  if (const auto number = NumberOf(value)) return *number;
  const Text* text = As<Text>(value);
  if (text == nullptr) return otherwise;
  context.budget->Read(text->size());
  const std::optional<double> number = ParsedFloat(text->bytes());
  return number ? Value(*number) : otherwise;
}

Value Abs(C, V value, A arguments) {
  const Bound bound("filter 'abs'", arguments, {});
  if (const auto whole = WholeOf(value)) return *whole < 0 ? Negated(*whole) : Value(*whole);
  if (const auto number = NumberOf(value)) return std::abs(*number);
  if (IsUndefined(value)) RefuseUndefined(value);
  Fail("filter 'abs' has {}, expected a number", KindOf(value));
}

Value Round(C, V value, A arguments) {
  const Bound bound("filter 'round'", arguments, {"precision", "method"});
  const int64_t precision = bound.Whole(0, 0);
  const std::string method = bound.TextOr(1, "common").bytes();
  if (method != "common" && method != "ceil" && method != "floor")
    Fail("filter 'round': method '{}' is not known; known are common, ceil and floor", Printable(method, 40));
  if (precision < -20 || precision > 30) Fail("filter 'round': precision {}, expected -20 to 30", precision);
  if (IsUndefined(value)) RefuseUndefined(value);
  const std::optional<double> number = NumberOf(value);
  if (!number) Fail("filter 'round' has {}, expected a number", KindOf(value));
  const double power = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return std::ceil(*number * power) / power;
  if (method == "floor") return std::floor(*number * power) / power;
  if (const auto whole = WholeOf(value); whole && precision >= 0) return *whole;
  if (WholeOf(value)) Fail("filter 'round' of a whole number to tens is not known");
  if (!std::isfinite(*number)) return *number;
  // The digits are those nearest to the exact value, ties to even, as Python has them.
  if (precision < 0) return std::nearbyint(*number * power) / power;
  return std::strtod(fmt::format("{:.{}f}", *number, precision).c_str(), nullptr);
}

// ---- texts

Value Indent(C context, V value, A arguments) {
  const Bound bound("filter 'indent'", arguments, {"width", "first", "blank"});
  Text blanks;
  if (bound.Has(0) && As<Text>(bound[0]) != nullptr) {
    blanks = *As<Text>(bound[0]);
  } else {
    const int64_t width = bound.Whole(0, 4);
    if (width > 10'000) Fail("filter 'indent': width {}, expected at most 10000", width);
    blanks = Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  Text text = ToText(context, value);
  text.Append("\n");
  Text indented;
  bool first = true;
  for (const Line& line : Lines(text.bytes())) {
    if (!first) indented.Append("\n");
    if (first ? bound.Flag(1, false) : line.begin < line.end || bound.Flag(2, false))
      AppendWithin(context, blanks, indented);
    indented.Append(text, line.begin, line.end);
    first = false;
  }
  return context.New(std::move(indented));
}

Value Trim(C context, V value, A arguments) {
  const Bound bound("filter 'trim'", arguments, {"chars"});
  const Text text = ToText(context, value);
  const std::string set = bound.IsNone(0) ? std::string() : bound.TextOr(0, "").bytes();
  context.budget->Step(1 + set.size() * (1 + text.size() / 32));
  const Extent extent = Stripped(text.bytes(), true, true, bound.IsNone(0) ? nullptr : &set);
  return context.New(text.Part(extent.begin, extent.end));
}

Value Join(C context, V value, A arguments) {
  const Bound bound("filter 'join'", arguments, {"d", "attribute"});
  const Text between = bound.Has(0) ? ToText(context, bound[0]) : Text();
  Text joined;
  bool first = true;
  for (const Value& element : Elements(context, value)) {
    if (!std::exchange(first, false)) AppendWithin(context, between, joined);
    AppendWithin(context, ToText(context, bound.IsNone(1) ? element : Path(context, element, bound[1])),
                 joined);
  }
  return context.New(std::move(joined));
}

Value Replace(C context, V value, A arguments) {
  const Bound bound("filter 'replace'", arguments, {"old", "new", "count"}, 2);
  const int64_t most = bound.IsNone(2) ? -1 : bound.Whole(2, -1);
  return context.New(
      Replaced(context, ToText(context, value), ToText(context, bound[0]), ToText(context, bound[1]), most));
}

Value Json(C context, V value, A arguments) {
  const Bound bound("filter 'tojson'", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  if (bound.Flag(0, false)) Fail("filter 'tojson': ensure_ascii is not known; text stays as it is");
  JsonStyle style;
  style.sort_keys = bound.Flag(3, false);
  if (!bound.IsNone(1)) {
    if (const Text* text = As<Text>(bound[1])) {
      style.indent = text->bytes();
    } else {
      const int64_t width = bound.Whole(1, 0);
      if (width > 1000) Fail("filter 'tojson': indent {}, expected at most 1000", width);
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
    style.item_separator = ",";
  }
  if (!bound.IsNone(2)) {
    const std::vector<Value> separators = Elements(context, bound[2]);
    if (separators.size() != 2 || As<Text>(separators[0]) == nullptr || As<Text>(separators[1]) == nullptr)
      Fail("filter 'tojson': separators are two texts");
    style.item_separator = As<Text>(separators[0])->bytes();
    style.key_separator = As<Text>(separators[1])->bytes();
  }
  return context.New(ToJson(context, value, style));
}

// A filter of texts without arguments.
template <Text (*kChange)(const Text&)>
Value Changed(C context, V value, A arguments) {
  const Bound bound("a filter of texts", arguments, {});
  const Text text = ToText(context, value);
  context.budget->Read(text.size() * 4);
  return context.New(kChange(text));
}

Text TitleFilter(const Text& text) { return Title(text, TitleRule::kJinja); }
Text Same(const Text& text) { return text; }

// ---- lists and dicts

Value Default(C context, V value, A arguments) {
  const Bound bound("filter 'default'", arguments, {"default_value", "boolean"});
  if (IsUndefined(value) || (bound.Flag(1, false) && !Truth(value)))
    return bound.Has(0) ? bound[0] : context.New(std::string());
  return value;
}

Value First(C context, V value, A arguments) {
  const Bound bound("filter 'first'", arguments, {});
  if (IsOfKind(value, List::Kind::kGenerator)) {
    const List& list = *As<List>(value);
    if (list.taken < list.items.size()) return list.items[list.taken++];
  } else if (const std::vector<Value> elements = Elements(context, value); !elements.empty()) {
    return elements.front();
  }
  return MakeUndefined("there is no first item, the sequence is empty");
}

Value Last(C context, V value, A arguments) {
  const Bound bound("filter 'last'", arguments, {});
  if (IsUndefined(value) || IsOfKind(value, List::Kind::kGenerator))
    Fail("filter 'last' has {}, expected a list, a text or a dict", KindOf(value));
  const std::vector<Value> elements = Elements(context, value);
  return elements.empty() ? MakeUndefined("there is no last item, the sequence is empty") : elements.back();
}

Value ListOf(C context, V value, A arguments) {
  const Bound bound("filter 'list'", arguments, {});
  return context.New(Elements(context, value));
}

Value Count(C context, V value, A arguments) {
  const Bound bound("filter 'length'", arguments, {});
  return Length(context, value);
}

Value Reverse(C context, V value, A arguments) {
  const Bound bound("filter 'reverse'", arguments, {});
  if (const Text* text = As<Text>(value)) {
    const std::vector<size_t> starts = text->CharacterStarts();
    Text reversed;
    for (size_t i = starts.size() - 1; i-- > 0;) reversed.Append(*text, starts[i], starts[i + 1]);
    return context.New(std::move(reversed));
  }
  std::vector<Value> elements = Elements(context, value);
  std::reverse(elements.begin(), elements.end());
  return context.New(std::move(elements), List::Kind::kGenerator);
}

Value Items(C context, V value, A arguments) {
  const Bound bound("filter 'items'", arguments, {});
  std::vector<Value> items;
  if (const Dict* dict = As<Dict>(value)) {
    for (const auto& [key, one] : dict->items)
      items.push_back(context.New(std::vector<Value>{key, one}, List::Kind::kTuple));
  } else if (!IsUndefined(value)) {
    Fail("filter 'items' has {}, expected a dict", KindOf(value));
  }
  return context.New(std::move(items), List::Kind::kGenerator);
}

Value DictSort(C context, V value, A arguments) {
  const Bound bound("filter 'dictsort'", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.TextOr(1, "key").bytes();
  if (by != "key" && by != "value")
    Fail("filter 'dictsort': by '{}', expected key or value", Printable(by, 40));
  if (IsUndefined(value)) RefuseUndefined(value);
  const Dict* dict = As<Dict>(value);
  if (dict == nullptr) Fail("filter 'dictsort' has {}, expected a dict", KindOf(value));
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, one] : dict->items)
    keyed.emplace_back(Caseless(context, by == "key" ? key : one, bound.Flag(0, false)),
                       context.New(std::vector<Value>{key, one}, List::Kind::kTuple));
  return context.New(Sorted(context, std::move(keyed), bound.Flag(2, false)));
}

Value Sort(C context, V value, A arguments) {
  const Bound bound("filter 'sort'", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& element : Elements(context, value))
    keyed.emplace_back(KeyOf(context, element, bound, 2, bound.Flag(1, false)), element);
  return context.New(Sorted(context, std::move(keyed), bound.Flag(0, false)));
}

Value Unique(C context, V value, A arguments) {
  const Bound bound("filter 'unique'", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> seen, unique;
  for (const Value& element : Elements(context, value)) {
    Value key = KeyOf(context, element, bound, 1, bound.Flag(0, false));
    if (As<Dict>(key) != nullptr || IsOfKind(key, List::Kind::kList))
      Fail("filter 'unique' finds {}, expected texts or numbers", KindOf(key));
    if (std::any_of(seen.begin(), seen.end(), [&](V one) { return Equal(context, one, key); })) continue;
    seen.push_back(std::move(key));
    unique.push_back(element);
  }
  return context.New(std::move(unique), List::Kind::kGenerator);
}

Value Extreme(C context, V value, A arguments, const char* filter, bool greatest) {
  const Bound bound(fmt::format("filter '{}'", filter), arguments, {"case_sensitive", "attribute"});
  std::optional<std::pair<Value, Value>> best;
  for (const Value& element : Elements(context, value)) {
    Value key = KeyOf(context, element, bound, 1, bound.Flag(0, false));
    if (best && !(greatest ? Less(context, best->first, key) : Less(context, key, best->first))) continue;
    best.emplace(std::move(key), element);
  }
  return best ? best->second : MakeUndefined("there is no item, the sequence is empty");
}

Value Sum(C context, V value, A arguments) {
  const Bound bound("filter 'sum'", arguments, {"attribute", "start"});
  Value sum = bound.Has(1) ? bound[1] : Value(int64_t{0});
  for (const Value& element : Elements(context, value))
    sum = Arithmetic(context, "+", sum, bound.IsNone(0) ? element : Path(context, element, bound[0]));
  return sum;
}

Value Batch(C context, V value, A arguments) {
  const Bound bound("filter 'batch'", arguments, {"linecount", "fill_with"}, 1);
  const int64_t count = bound.Whole(0, 0);
  if (count < 1 || count > kLongestRange)
    Fail("filter 'batch': {} elements, expected 1 to {}", count, kLongestRange);
  std::vector<Value> batches, batch;
  for (const Value& element : Elements(context, value)) {
    if (batch.size() == static_cast<size_t>(count)) batches.push_back(context.New(std::exchange(batch, {})));
    batch.push_back(element);
  }
  if (!batch.empty()) {
    if (!bound.IsNone(1)) batch.resize(static_cast<size_t>(count), bound[1]);
    batches.push_back(context.New(std::move(batch)));
  }
  return context.New(std::move(batches), List::Kind::kGenerator);
}

struct Named {
  std::string_view name;
  Filter filter;
};

const Named kFilters[] = {
    {"abs", Abs},
    {"attr",
     [](C c, V v, A a) {
       const Bound bound("filter 'attr'", a, {"name"}, 1);
       return Attribute(c, v, bound.TextOr(0, "").bytes());
     }},
    {"batch", Batch},
    {"capitalize", Changed<Capitalize>},
    {"count", Count},
    {"d", Default},
    {"default", Default},
    {"dictsort", DictSort},
    {"first", First},
    {"float", Float},
    {"indent", Indent},
    {"int", Int},
    {"items", Items},
    {"join", Join},
    {"last", Last},
    {"length", Count},
    {"list", ListOf},
    {"lower", Changed<Lower>},
    {"map", Map},
    {"max", [](C c, V v, A a) { return Extreme(c, v, a, "max", true); }},
    {"min", [](C c, V v, A a) { return Extreme(c, v, a, "min", false); }},
    {"reject", [](C c, V v, A a) { return Selected(c, v, a, "reject", false, false); }},
    {"rejectattr", [](C c, V v, A a) { return Selected(c, v, a, "rejectattr", true, false); }},
    {"replace", Replace},
    {"reverse", Reverse},
    {"round", Round},
    {"safe", Changed<Same>},
    {"select", [](C c, V v, A a) { return Selected(c, v, a, "select", false, true); }},
    {"selectattr", [](C c, V v, A a) { return Selected(c, v, a, "selectattr", true, true); }},
    {"sort", Sort},
    {"string", Changed<Same>},
    {"sum", Sum},
    {"title", Changed<TitleFilter>},
    {"tojson", Json},
    {"trim", Trim},
    {"unique", Unique},
    {"upper", Changed<Upper>},
};

}  // namespace

Filter FilterOf(std::string_view name) {
  for (const Named& one : kFilters) {
    if (one.name == name) return one.filter;
  }
  std::vector<std::string_view> known;
  for (const Named& one : kFilters) known.push_back(one.name);
  Fail("filter '{}' is not known; known are {}", Printable(name, 40), fmt::join(known, ", "));
}

}  // namespace mica::jinja
