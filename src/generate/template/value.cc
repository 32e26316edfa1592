#include "generate/template/value.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace mica::jinja {
namespace {

using Items = std::vector<std::pair<Value, Value>>;

int DepthOf(const Value& value) {
  if (const List* list = As<List>(value)) return list->depth;
  if (const Dict* dict = As<Dict>(value)) return dict->depth;
  return 0;
}

int OneDeeper(int depth) {
  if (depth >= kValueDepth) Fail("lists and dicts lie more than {} levels inside each other", kValueDepth);
  return depth + 1;
}

// -1, 0, 1; nothing where the values have no order.
std::optional<int> Order(const Context& context, const Value& a, const Value& b) {
  context.budget->Step();
  if (const auto left = WholeOf(a), right = WholeOf(b); left && right)
    return (*left > *right) - (*left < *right);
  if (const auto left = NumberOf(a), right = NumberOf(b); left && right) {
    if (std::isnan(*left) || std::isnan(*right)) return 2;  // neither less nor equal
    return (*left > *right) - (*left < *right);
  }
  const Text *left_text = As<Text>(a), *right_text = As<Text>(b);
  if (left_text != nullptr && right_text != nullptr) {
    context.budget->Read(std::min(left_text->size(), right_text->size()));
    const int order = left_text->bytes().compare(right_text->bytes());
    return (order > 0) - (order < 0);
  }
  const List *left = As<List>(a), *right = As<List>(b);
  if (left != nullptr && right != nullptr && left->kind == right->kind && left->kind <= List::Kind::kTuple) {
    const size_t both = std::min(left->items.size(), right->items.size());
    for (size_t i = 0; i < both; ++i) {
      if (!Equal(context, left->items[i], right->items[i]))
        return Order(context, left->items[i], right->items[i]);
    }
    return (left->items.size() > right->items.size()) - (left->items.size() < right->items.size());
  }
  return std::nullopt;
}

int CheckedOrder(const Context& context, const Value& a, const Value& b) {
  if (IsUndefined(a)) RefuseUndefined(a);
  if (IsUndefined(b)) RefuseUndefined(b);
  const std::optional<int> order = Order(context, a, b);
  if (!order) Fail("{} and {} have no order", KindOf(a), KindOf(b));
  return *order;
}

}  // namespace

Value Context::New(Text text) const {
  struct Held {
    Text text;
    Holding holding;
  };
  budget->Read(text.size());
  const size_t bytes = text.footprint();
  auto held = std::make_shared<const Held>(Held{std::move(text), Holding(budget, bytes)});
  return std::shared_ptr<const Text>(held, &held->text);
}

Value Context::New(std::vector<Value> items, List::Kind kind) const {
  budget->Step(1 + items.size());
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, DepthOf(item));
  const size_t bytes = sizeof(List) + items.size() * sizeof(Value);
  return std::make_shared<const List>(
      List{kind, std::move(items), OneDeeper(depth), 0, Holding(budget, bytes)});
}

Value Context::New(Items items) const {
  budget->Step(1 + items.size());
  int depth = 0;
  for (const auto& [key, value] : items) depth = std::max({depth, DepthOf(key), DepthOf(value)});
  const size_t bytes = sizeof(Dict) + items.size() * 2 * sizeof(Value);
  return std::make_shared<const Dict>(Dict{std::move(items), OneDeeper(depth), Holding(budget, bytes)});
}

Value MakeUndefined(std::string what) {
  return Undefined{std::make_shared<const std::string>(std::move(what))};
}

Value FromJson(const Context& context, const Json& json, Marks marks) {
  switch (json.type()) {
    case Json::value_t::null:
      return None();
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        Fail("the number {} is beyond 64 bits", json.get<uint64_t>());
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (FirstInvalidUtf8(text) != std::string_view::npos)
        Fail("the text \"{}\" is not valid UTF-8", Printable(text));
      return context.New(Text(text, marks != Marks::kNone));
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& one : json) items.push_back(FromJson(context, one, marks));
      return context.New(std::move(items));
    }
    case Json::value_t::object: {
      Items items;
      for (const auto& [key, one] : json.items()) {
        const bool role = marks == Marks::kMessages && key == "role";
        const Marks inner = role ? Marks::kNone : marks == Marks::kMessages ? Marks::kAll : marks;
        if (FirstInvalidUtf8(key) != std::string_view::npos)
          Fail("the key \"{}\" is not valid UTF-8", Printable(key));
        // The keys of a message are the program's; those further in may be anybody's.
        items.emplace_back(context.New(Text(key, marks == Marks::kAll)), FromJson(context, one, inner));
      }
      return context.New(std::move(items));
    }
    default:
      Fail("a value of JSON type {} has no place in a template", json.type_name());
  }
}

std::optional<int64_t> WholeOf(const Value& value) {
  if (const auto* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
  if (const auto* whole = std::get_if<int64_t>(&value)) return *whole;
  return std::nullopt;
}

std::optional<double> NumberOf(const Value& value) {
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto whole = WholeOf(value)) return static_cast<double>(*whole);
  return std::nullopt;
}

bool IsOfKind(const Value& value, List::Kind kind) {
  const List* list = As<List>(value);
  return list != nullptr && list->kind == kind;
}

std::string KindOf(const Value& value) {
  if (const List* list = As<List>(value)) {
    constexpr const char* kNames[] = {"a list", "a tuple", "a range", "the view of a dict", "a generator"};
    return kNames[static_cast<size_t>(list->kind)];
  }
  constexpr const char* kNames[] = {"an undefined value", "none",   "true or false", "a whole number",
                                    "a number",           "a text", "a list",        "a dict",
                                    "a namespace",        "loop",   "a function"};
  return kNames[value.index()];
}

void RefuseUndefined(const Value& value) {
  const auto& what = std::get<Undefined>(value).what;
  throw Error(what ? *what : "an undefined value is used");
}

bool Truth(const Value& value) {
  if (const auto* truth = std::get_if<bool>(&value)) return *truth;
  if (const auto* whole = std::get_if<int64_t>(&value)) return *whole != 0;
  if (const auto* number = std::get_if<double>(&value)) return *number != 0;
  if (const Text* text = As<Text>(value)) return !text->empty();
  if (const List* list = As<List>(value)) return list->kind == List::Kind::kGenerator || !list->items.empty();
  if (const Dict* dict = As<Dict>(value)) return !dict->items.empty();
  return !IsUndefined(value) && !IsNone(value);
}

bool Equal(const Context& context, const Value& a, const Value& b) {
  context.budget->Step();
  if (const auto left = WholeOf(a), right = WholeOf(b); left && right) return *left == *right;
  if (const auto left = NumberOf(a), right = NumberOf(b); left && right) return *left == *right;
  if (a.index() != b.index()) return false;
  if (IsUndefined(a) || IsNone(a)) return true;
  if (const Text* left = As<Text>(a)) {
    const Text* right = As<Text>(b);
    if (left->size() != right->size()) return false;
    context.budget->Read(left->size());
    return left->bytes() == right->bytes();
  }
  if (const List* left = As<List>(a)) {
    const List* right = As<List>(b);
    if (left == right) return true;
    if (left->kind != right->kind || left->kind >= List::Kind::kView) return false;
    return std::equal(left->items.begin(), left->items.end(), right->items.begin(), right->items.end(),
                      [&](const Value& one, const Value& other) { return Equal(context, one, other); });
  }
  if (const Dict* left = As<Dict>(a)) {
    const Dict* right = As<Dict>(b);
    if (left->items.size() != right->items.size()) return false;
    return std::all_of(left->items.begin(), left->items.end(), [&](const auto& item) {
      const Value* other = Find(context, *right, item.first);
      return other != nullptr && Equal(context, item.second, *other);
    });
  }
  return a == b;
}

bool Less(const Context& context, const Value& a, const Value& b) {
  return CheckedOrder(context, a, b) == -1;
}

bool LessOrEqual(const Context& context, const Value& a, const Value& b) {
  return CheckedOrder(context, a, b) <= 0;
}

bool Contains(const Context& context, const Value& container, const Value& value) {
  if (const Text* text = As<Text>(container)) {
    if (IsUndefined(value)) RefuseUndefined(value);
    const Text* part = As<Text>(value);
    if (part == nullptr) Fail("'in' looks for {} in a text, expected a text", KindOf(value));
    context.budget->Read(text->size() + part->size());
    return FindPart(text->bytes(), part->bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = As<Dict>(container)) {
    if (As<List>(value) != nullptr || As<Dict>(value) != nullptr)
      Fail("'in' looks for {} in a dict, expected a key", KindOf(value));
    return Find(context, *dict, value) != nullptr;
  }
  const std::vector<Value> elements = Elements(context, container);
  return std::any_of(elements.begin(), elements.end(),
                     [&](const Value& element) { return Equal(context, element, value); });
}

std::vector<Value> Elements(const Context& context, const Value& value) {
  if (IsUndefined(value)) return {};
  if (const List* list = As<List>(value)) {
    context.budget->Step(list->items.size());
    if (list->kind != List::Kind::kGenerator) return list->items;
    const auto from = list->items.begin() + static_cast<std::ptrdiff_t>(list->taken);
    list->taken = list->items.size();
    return {from, list->items.end()};
  }
  std::vector<Value> elements;
  if (const Dict* dict = As<Dict>(value)) {
    context.budget->Step(dict->items.size());
    for (const auto& item : dict->items) elements.push_back(item.first);
    return elements;
  }
  if (const Text* text = As<Text>(value)) {
    const std::vector<size_t> starts = text->CharacterStarts();
    for (size_t i = 0; i + 1 < starts.size(); ++i)
      elements.push_back(context.New(text->Part(starts[i], starts[i + 1])));
    return elements;
  }
  Fail("{} has no elements, expected a list, a dict or a text", KindOf(value));
}

int64_t Length(const Context& context, const Value& value) {
  if (IsUndefined(value)) return 0;
  if (const List* list = As<List>(value); list != nullptr && list->kind != List::Kind::kGenerator)
    return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = As<Dict>(value)) return static_cast<int64_t>(dict->items.size());
  if (const Text* text = As<Text>(value)) {
    context.budget->Read(text->size());
    return static_cast<int64_t>(text->Characters());
  }
  if (const LoopState* loop = As<LoopState>(value)) return static_cast<int64_t>(loop->items->items.size());
  Fail("{} has no length", KindOf(value));
}

const Value* Find(const Context& context, const Dict& dict, const Value& key) {
  for (const auto& [one, value] : dict.items) {
    if (Equal(context, one, key)) return &value;
  }
  return nullptr;
}

const Value* Find(const Context& context, const Dict& dict, std::string_view key) {
  context.budget->Step(1 + dict.items.size() / 4);
  for (const auto& [one, value] : dict.items) {
    if (const Text* text = As<Text>(one); text != nullptr && text->bytes() == key) return &value;
  }
  return nullptr;
}

void Put(const Context& context, Items& items, Value key, Value value) {
  if (As<List>(key) != nullptr || As<Dict>(key) != nullptr)
    Fail("the key of a dict is {}, expected a text or a number", KindOf(key));
  for (auto& [one, there] : items) {
    if (Equal(context, one, key)) {
      there = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

}  // namespace mica::jinja
