#include "generate/template/access.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace mica::jinja {
namespace {

Value NoAttribute(const Value& value, const std::string& name) {
  return MakeUndefined(fmt::format("{} has no attribute '{}'", KindOf(value), Printable(name, 40)));
}

Value LoopAttribute(const LoopState& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index0);
  const auto length = static_cast<int64_t>(loop.items->items.size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == length;
  if (name == "length") return length;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - index - 1;
  if (name == "depth") return static_cast<int64_t>(loop.depth0) + 1;
  if (name == "depth0") return static_cast<int64_t>(loop.depth0);
  if (name == "previtem") {
    if (index == 0) return MakeUndefined("there is no previous item");
    return loop.items->items[loop.index0 - 1];
  }
  if (name == "nextitem") {
    if (index + 1 == length) return MakeUndefined("there is no next item");
    return loop.items->items[loop.index0 + 1];
  }
  if (name == "changed") Fail("loop.changed is not known; keep the value in a namespace");
  return MakeUndefined(fmt::format("loop has no attribute '{}'", Printable(name, 40)));
}

struct Bounds {
  int64_t begin, end, step;
};

// Python's slice.indices.
Bounds BoundsOf(int64_t length, const Value* begin, const Value* end, const Value* step) {
  const auto number = [](const Value* value, int64_t otherwise) {
    if (value == nullptr || IsNone(*value)) return otherwise;
    if (IsUndefined(*value)) RefuseUndefined(*value);
    const std::optional<int64_t> whole = WholeOf(*value);
    if (!whole) Fail("a slice begins, ends or steps at {}, expected a whole number", KindOf(*value));
    return *whole;
  };
  Bounds bounds{0, 0, number(step, 1)};
  if (bounds.step == 0) Fail("the step of a slice is 0");
  const bool forward = bounds.step > 0;
  const int64_t low = forward ? 0 : -1, high = forward ? length : length - 1;
  const auto place = [&](const Value* value, int64_t otherwise) {
    if (value == nullptr || IsNone(*value)) return otherwise;
    int64_t at = number(value, 0);
    if (at < 0) at = at < -length ? -1 : at + length;
    return std::clamp(at, low, high);
  };
  bounds.begin = place(begin, forward ? low : high);
  bounds.end = place(end, forward ? high : low);
  return bounds;
}

template <typename Take>
void ForEachIn(const Bounds& bounds, const Take& take) {
  const int64_t step = std::clamp<int64_t>(bounds.step, -(1 << 30), 1 << 30);  // beyond any length
  for (int64_t at = bounds.begin; step > 0 ? at < bounds.end : at > bounds.end; at += step)
    take(static_cast<size_t>(at));
}

[[noreturn]] void RefuseOperands(std::string_view op, const Value& a, const Value& b) {
  if (IsUndefined(a)) RefuseUndefined(a);
  if (IsUndefined(b)) RefuseUndefined(b);
  Fail("operator '{}' has no meaning between {} and {}", op, KindOf(a), KindOf(b));
}

[[noreturn]] void RefuseRange(std::string_view op) { Fail("the result of '{}' is beyond 64 bits", op); }

Value WholeArithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool beyond = false;
  if (op == "+") {
    beyond = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    beyond = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    beyond = __builtin_mul_overflow(a, b, &result);
  } else if (op == "/") {
    if (b == 0) Fail("division by zero");
    return static_cast<double>(a) / static_cast<double>(b);
  } else if (op == "//" || op == "%") {
    if (b == 0) Fail("division by zero");
    if (b == -1) {  // the quotient of the least number is beyond
      beyond = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      const int64_t rest = a % b;
      const bool down = rest != 0 && (rest < 0) != (b < 0);
      result = op == "//" ? a / b - (down ? 1 : 0) : rest + (down ? b : 0);
    }
  } else {  // **
    if (b < 0) {
      if (a == 0) Fail("division by zero");
      return std::pow(static_cast<double>(a), static_cast<double>(b));
    }
    result = 1;
    for (int64_t base = a; b > 0 && !beyond; b >>= 1) {
      if (b & 1) beyond = __builtin_mul_overflow(result, base, &result);
      if (b > 1 && __builtin_mul_overflow(base, base, &base)) beyond = true;
    }
  }
  if (beyond) RefuseRange(op);
  return result;
}

Value FloatArithmetic(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    const double power = std::pow(a, b);
    if (a == 0 && b < 0) Fail("division by zero");
    if (std::isnan(power) && !std::isnan(a) && !std::isnan(b)) Fail("the result of '**' is no real number");
    if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) Fail("the result of '**' is too large");
    return power;
  }
  if (b == 0) Fail("division by zero");
  if (op == "/") return a / b;
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0) {
    if ((rest < 0) != (b < 0)) {
      rest += b;
      quotient -= 1;
    }
  } else {
    rest = std::copysign(0.0, b);
  }
  if (op == "%") return rest;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

// A text or list `count` times over.
Value Repeated(const Context& context, const Value& value, int64_t count) {
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  const Text* text = As<Text>(value);
  const uint64_t size = text != nullptr ? text->footprint() : As<List>(value)->items.size() * sizeof(Value);
  if (size > 0 && times > context.budget->limits().held_bytes / size)
    Fail("'*' makes a value of more than {} MiB", context.budget->limits().held_bytes >> 20);
  if (text != nullptr) {
    Text repeated;
    for (uint64_t i = 0; i < times && !text->empty(); ++i) repeated.Append(*text);
    return context.New(std::move(repeated));
  }
  const List& list = *As<List>(value);
  std::vector<Value> items;
  for (uint64_t i = 0; i < times && !list.items.empty(); ++i)
    items.insert(items.end(), list.items.begin(), list.items.end());
  return context.New(std::move(items), list.kind);
}

bool IsSequence(const Value& value) {
  return As<Text>(value) != nullptr || IsOfKind(value, List::Kind::kList) ||
         IsOfKind(value, List::Kind::kTuple);
}

}  // namespace

Value Attribute(const Context& context, const Value& value, const std::string& name) {
  if (IsUndefined(value)) RefuseUndefined(value);
  if (const LoopState* loop = As<LoopState>(value); loop != nullptr && name != "cycle")
    return LoopAttribute(*loop, name);
  if (const auto* space = std::get_if<std::shared_ptr<Namespace>>(&value)) {
    const auto found = (*space)->values.find(name);
    return found == (*space)->values.end() ? NoAttribute(value, name) : found->second;
  }
  if (HasMethod(value, name))
    return std::make_shared<const Callable>(Callable{Callable::Kind::kMethod, name, value});
  if (const Dict* dict = As<Dict>(value)) {
    if (const Value* found = Find(context, *dict, name)) return *found;
  }
  RefuseForeignMethod(value, name);
  return NoAttribute(value, name);
}

Value Item(const Context& context, const Value& value, const Value& key) {
  if (IsUndefined(value)) RefuseUndefined(value);
  if (const Dict* dict = As<Dict>(value)) {
    if (const Value* found = Find(context, *dict, key)) return *found;
  } else if (const auto index = WholeOf(key)) {
    const List* list = As<List>(value);
    if (list != nullptr && list->kind <= List::Kind::kRange) {
      const auto length = static_cast<int64_t>(list->items.size());
      const int64_t at = *index < 0 ? *index + length : *index;
      if (at >= 0 && at < length) return list->items[static_cast<size_t>(at)];
    }
    if (const Text* text = As<Text>(value)) {
      context.budget->Read(text->size() * 4);
      const std::vector<size_t> starts = text->CharacterStarts();
      const auto length = static_cast<int64_t>(starts.size()) - 1;
      const int64_t at = *index < 0 ? *index + length : *index;
      if (at >= 0 && at < length)
        return context.New(text->Part(starts[static_cast<size_t>(at)], starts[static_cast<size_t>(at) + 1]));
    }
  }
  if (const Text* name = As<Text>(key)) return Attribute(context, value, name->bytes());
  return MakeUndefined(fmt::format("{} has no element {}", KindOf(value),
                                   WholeOf(key) ? std::to_string(*WholeOf(key)) : KindOf(key)));
}

Value Slice(const Context& context, const Value& value, const Value* begin, const Value* end,
            const Value* step) {
  if (IsUndefined(value)) RefuseUndefined(value);
  if (const List* list = As<List>(value); list != nullptr && list->kind <= List::Kind::kRange) {
    std::vector<Value> items;
    ForEachIn(BoundsOf(static_cast<int64_t>(list->items.size()), begin, end, step),
              [&](size_t at) { items.push_back(list->items[at]); });
    return context.New(std::move(items), list->kind);
  }
  if (const Text* text = As<Text>(value)) {
    context.budget->Read(text->size() * 4);
    const std::vector<size_t> starts = text->CharacterStarts();
    const Bounds bounds = BoundsOf(static_cast<int64_t>(starts.size()) - 1, begin, end, step);
    Text part;
    if (bounds.step == 1) {
      if (bounds.begin < bounds.end)
        part.Append(*text, starts[static_cast<size_t>(bounds.begin)],
                    starts[static_cast<size_t>(bounds.end)]);
    } else {
      ForEachIn(bounds, [&](size_t at) { part.Append(*text, starts[at], starts[at + 1]); });
    }
    return context.New(std::move(part));
  }
  return MakeUndefined(fmt::format("{} has no parts", KindOf(value)));
}

Value Arithmetic(const Context& context, std::string_view op, const Value& a, const Value& b) {
  if (const auto left = WholeOf(a), right = WholeOf(b); left && right)
    return WholeArithmetic(op, *left, *right);
  if (const auto left = NumberOf(a), right = NumberOf(b); left && right)
    return FloatArithmetic(op, *left, *right);
  if (op == "+") {
    const Text *left = As<Text>(a), *right = As<Text>(b);
    if (left != nullptr && right != nullptr) {
      Text sum = *left;
      sum.Append(*right);
      return context.New(std::move(sum));
    }
    if (IsSequence(a) && IsSequence(b) && left == nullptr && right == nullptr &&
        As<List>(a)->kind == As<List>(b)->kind) {
      std::vector<Value> items = As<List>(a)->items;
      items.insert(items.end(), As<List>(b)->items.begin(), As<List>(b)->items.end());
      return context.New(std::move(items), As<List>(a)->kind);
    }
  }
  if (op == "*") {
    if (const auto times = WholeOf(b); times && IsSequence(a)) return Repeated(context, a, *times);
    if (const auto times = WholeOf(a); times && IsSequence(b)) return Repeated(context, b, *times);
  }
  if (op == "%" && As<Text>(a) != nullptr)
    Fail("formatting a text by '%' is not known; join the parts by '~'");
  RefuseOperands(op, a, b);
}

bool Compare(const Context& context, std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return Equal(context, a, b);
  if (op == "!=") return !Equal(context, a, b);
  if (op == "<") return Less(context, a, b);
  if (op == "<=") return LessOrEqual(context, a, b);
  if (op == ">") return Less(context, b, a);
  if (op == ">=") return LessOrEqual(context, b, a);
  return Contains(context, b, a) == (op == "in");
}

Value Negated(const Value& value) {
  if (const auto whole = WholeOf(value)) return WholeArithmetic("-", 0, *whole);
  if (const auto number = NumberOf(value)) return -*number;
  if (IsUndefined(value)) RefuseUndefined(value);
  Fail("'-' has no meaning in front of {}", KindOf(value));
}

}  // namespace mica::jinja
