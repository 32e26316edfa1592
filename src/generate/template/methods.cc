// Methods of texts, dicts and loop, and the functions that every template has.
#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/access.h"
#include "generate/template/refusal.h"
#include "generate/template/text_tools.h"

namespace mica::jinja {
namespace {

constexpr std::array<std::string_view, 26> kTextMethods = {
    "strip",    "lstrip",  "rstrip",  "split",        "rsplit",      "splitlines", "startswith",
    "endswith", "upper",   "lower",   "title",        "capitalize",  "replace",    "find",
    "rfind",    "index",   "count",   "join",         "isdigit",     "isalpha",    "isalnum",
    "isspace",  "isupper", "islower", "removeprefix", "removesuffix"};
constexpr std::array<std::string_view, 4> kDictMethods = {"items", "keys", "values", "get"};

// What Python has besides.
constexpr std::string_view kForeignOfText[] = {
    "casefold",  "center",       "encode",    "expandtabs",  "format",   "format_map", "isascii",
    "isdecimal", "isidentifier", "isnumeric", "isprintable", "istitle",  "ljust",      "maketrans",
    "partition", "rindex",       "rjust",     "rpartition",  "swapcase", "translate",  "zfill"};
constexpr std::string_view kForeignOfDict[] = {"clear",   "copy",       "fromkeys", "pop",
                                               "popitem", "setdefault", "update"};
constexpr std::string_view kForeignOfList[] = {"append", "clear", "copy",   "count",   "extend", "index",
                                               "insert", "pop",   "remove", "reverse", "sort"};

template <typename Names>
bool IsAmong(const Names& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

class TextMethod {
 public:
  TextMethod(const Context& context, const Text& self, const std::string& name, const Arguments& arguments)
      : context_(context), self_(self), text_(self.bytes()), name_(name), arguments_(arguments) {}

  Value Call() {
    context_.budget->Read(text_.size());
    if (name_ == "strip") return Strip(true, true);
    if (name_ == "lstrip") return Strip(true, false);
    if (name_ == "rstrip") return Strip(false, true);
    if (name_ == "split") return Split(false);
    if (name_ == "rsplit") return Split(true);
    if (name_ == "startswith" || name_ == "endswith") return HasEnd();
    if (name_ == "replace") {
      const Bound bound = Bind({"old", "new", "count"}, 2);
      const Text old = bound.TextOr(0, "");
      return context_.New(Replaced(context_, self_, old, bound.TextOr(1, ""), bound.Whole(2, -1)));
    }
    if (name_ == "find" || name_ == "rfind" || name_ == "index") return Place();
    if (name_ == "count") {
      const Text part = Bind({"sub"}, 1).TextOr(0, "");
      if (part.empty()) return static_cast<int64_t>(self_.Characters()) + 1;
      int64_t count = 0;
      for (size_t at = FindPart(text_, part.bytes()); at != std::string::npos;
           at = FindPart(text_, part.bytes(), at + part.size()))
        ++count;
      return count;
    }
    if (name_ == "join") {
      const Bound bound = Bind({"iterable"}, 1);
      return Joined(bound[0]);
    }
    if (name_ == "removeprefix" || name_ == "removesuffix") {
      const Text part = Bind({"part"}, 1).TextOr(0, "");
      const bool front = name_ == "removeprefix";
      if (part.empty() || !(front ? text_.starts_with(part.bytes()) : text_.ends_with(part.bytes())))
        return context_.New(self_);
      return context_.New(front ? self_.Part(part.size(), text_.size())
                                : self_.Part(0, text_.size() - part.size()));
    }
    if (name_ == "splitlines") {
      const bool keep = Bind({"keepends"}).Flag(0, false);
      std::vector<Value> lines;
      for (const Line& line : Lines(text_)) lines.push_back(Part(line.begin, keep ? line.next : line.end));
      return context_.New(std::move(lines));
    }
    Bind({});
    if (name_ == "upper") return context_.New(Upper(self_));
    if (name_ == "lower") return context_.New(Lower(self_));
    if (name_ == "title") return context_.New(Title(self_, TitleRule::kPython));
    if (name_ == "capitalize") return context_.New(Capitalize(self_));
    if (name_ == "isdigit") return IsDigit(text_);
    if (name_ == "isalnum") return IsDigit(text_, true);
    if (name_ == "isalpha") return IsAlpha(text_);
    if (name_ == "isupper") return IsUpper(text_);
    if (name_ == "islower") return IsLower(text_);
    MICA_CHECK(name_ == "isspace");
    return !text_.empty() && Stripped(text_, true, false).begin == text_.size();
  }

 private:
  Bound Bind(std::initializer_list<std::string_view> parameters, size_t required = 0) const {
    return Bound(fmt::format("method '{}'", name_), arguments_, parameters, required);
  }

  Value Part(size_t begin, size_t end) const { return context_.New(self_.Part(begin, end)); }

  Value Strip(bool left, bool right) const {
    const Bound bound = Bind({"chars"});
    if (bound.IsNone(0)) {
      const Extent extent = Stripped(text_, left, right);
      return Part(extent.begin, extent.end);
    }
    const std::string set = bound.TextOr(0, "").bytes();
    context_.budget->Step(set.size() * (1 + text_.size() / 32));
    const Extent extent = Stripped(text_, left, right, &set);
    return Part(extent.begin, extent.end);
  }

  Value Split(bool from_right) const {
    const Bound bound = Bind({"sep", "maxsplit"});
    const int64_t most = bound.Whole(1, -1);
    const bool bounded = most >= 0;
    std::vector<Extent> parts;
    const auto more = [&] { return !bounded || parts.size() < static_cast<uint64_t>(most); };
    if (bound.IsNone(0)) {
      Extent rest = Stripped(text_, true, true);
      while (rest.begin < rest.end) {
        Extent word = rest;
        if (more()) {
          if (from_right) {
            while (word.begin < word.end && !SpaceBefore(word.end)) word.end = Before(word.end);
            word = {word.end, rest.end};
            rest = {
                rest.begin,
                rest.begin + Stripped(text_.substr(rest.begin, word.begin - rest.begin), false, true).end};
          } else {
            word.end = word.begin;
            while (word.end < rest.end && !SpaceAt(word.end)) word.end = After(word.end);
            rest.begin = word.end + Stripped(text_.substr(word.end, rest.end - word.end), true, false).begin;
          }
        } else {
          // What is left keeps the blanks at the end that splitting did not reach.
          word = from_right ? Extent{0, rest.end} : Extent{rest.begin, text_.size()};
          rest.end = rest.begin;
        }
        parts.push_back(word);
      }
    } else {
      const std::string separator = bound.TextOr(0, "").bytes();
      if (separator.empty()) Fail("method '{}' has an empty separator", name_);
      Extent rest{0, text_.size()};
      while (more()) {
        const size_t at =
            from_right ? RightFind(rest.end, separator) : FindPart(text_, separator, rest.begin);
        if (at == std::string::npos) break;
        if (from_right) {
          parts.push_back({at + separator.size(), rest.end});
          rest.end = at;
        } else {
          parts.push_back({rest.begin, at});
          rest.begin = at + separator.size();
        }
      }
      parts.push_back(rest);
    }
    if (from_right) std::reverse(parts.begin(), parts.end());
    std::vector<Value> values;
    for (const Extent& part : parts) values.push_back(Part(part.begin, part.end));
    return context_.New(std::move(values));
  }

  size_t RightFind(size_t end, const std::string& part) const {
    context_.budget->Step(1 + (end / 32) * (1 + part.size() / 32));
    const std::string_view before = text_.substr(0, end);
    // rfind compares part after part from the right; charged as if all of it were read each time it begins.
    for (size_t at = before.size() < part.size() ? std::string::npos : before.size() - part.size();
         at != std::string::npos; at = at == 0 ? std::string::npos : at - 1) {
      if (before[at] != part[0]) continue;
      context_.budget->Read(part.size());
      if (before.compare(at, part.size(), part) == 0) return at;
    }
    return std::string::npos;
  }

  size_t After(size_t at) const {
    do ++at;
    while (at < text_.size() && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80);
    return at;
  }
  size_t Before(size_t at) const {
    do --at;
    while (at > 0 && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80);
    return at;
  }
  bool SpaceAt(size_t at) const { return Stripped(text_.substr(at, After(at) - at), true, false).begin != 0; }
  bool SpaceBefore(size_t at) const { return SpaceAt(Before(at)); }

  Value HasEnd() const {
    const Bound bound = Bind({"part"}, 1);
    std::vector<Value> parts{bound[0]};
    if (IsOfKind(bound[0], List::Kind::kTuple)) parts = As<List>(bound[0])->items;
    for (const Value& one : parts) {
      const Text* part = As<Text>(one);
      if (part == nullptr) Fail("method '{}' has {}, expected a text", name_, KindOf(one));
      context_.budget->Read(part->size());
      if (name_ == "startswith" ? text_.starts_with(part->bytes()) : text_.ends_with(part->bytes()))
        return true;
    }
    return false;
  }

  Value Place() const {
    const Text part = Bind({"sub"}, 1).TextOr(0, "");
    const size_t at = name_ != "rfind" ? FindPart(text_, part.bytes())
                      : part.empty()   ? text_.size()
                                       : RightFind(text_.size(), part.bytes());
    if (at == std::string::npos) {
      if (name_ == "index") Fail("method 'index' does not find its text");
      return int64_t{-1};
    }
    return static_cast<int64_t>(self_.Part(0, at).Characters());
  }

  Value Joined(const Value& list) const {
    Text joined;
    bool first = true;
    for (const Value& element : Elements(context_, list)) {
      const Text* text = As<Text>(element);
      if (text == nullptr) Fail("method 'join' finds {}, expected texts", KindOf(element));
      if (!std::exchange(first, false)) AppendWithin(context_, self_, joined);
      AppendWithin(context_, *text, joined);
    }
    return context_.New(std::move(joined));
  }

  const Context& context_;
  const Text& self_;
  const std::string_view text_;
  const std::string& name_;
  const Arguments& arguments_;
};

Value CallDictMethod(const Context& context, const Dict& dict, const std::string& name,
                     const Arguments& arguments) {
  const std::string what = fmt::format("method '{}'", name);
  if (name == "get") {
    const Bound bound(what, arguments, {"key", "default"}, 1);
    if (As<List>(bound[0]) != nullptr || As<Dict>(bound[0]) != nullptr)
      Fail("method 'get' has {}, expected a key", KindOf(bound[0]));
    if (const Value* found = Find(context, dict, bound[0])) return *found;
    return bound.Has(1) ? bound[1] : None();
  }
  const Bound none(what, arguments, {});
  std::vector<Value> values;
  for (const auto& [key, value] : dict.items) {
    if (name == "keys")
      values.push_back(key);
    else if (name == "values")
      values.push_back(value);
    else
      values.push_back(context.New(std::vector<Value>{key, value}, List::Kind::kTuple));
  }
  return context.New(std::move(values), List::Kind::kView);
}

Value Range(const Context& context, const Arguments& arguments) {
  const Bound bound("function 'range'", arguments, {"start", "stop", "step"}, 1);
  const int64_t first = bound.Whole(0, 0);
  const int64_t begin = bound.Has(1) ? first : 0, end = bound.Has(1) ? bound.Whole(1, 0) : first;
  const int64_t step = bound.Whole(2, 1);
  if (step == 0) Fail("function 'range' has step 0");
  const auto distance = static_cast<__int128>(end) - begin;
  const __int128 count = (step > 0) == (distance > 0) ? (distance + step - (step > 0 ? 1 : -1)) / step : 0;
  if (count > kLongestRange) Fail("function 'range' makes more than {} numbers", kLongestRange);
  std::vector<Value> numbers;
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) numbers.emplace_back(begin + i * step);
  return context.New(std::move(numbers), List::Kind::kRange);
}

// The pairs that dict() and namespace() begin with.
std::vector<std::pair<Value, Value>> Pairs(const Context& context, const std::string& name,
                                           const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1)
    Fail("function '{}' has {} arguments without a name, expected at most one", name,
         arguments.positional.size());
  for (const Value& given : arguments.positional) {
    if (const Dict* dict = As<Dict>(given)) {
      items = dict->items;
      continue;
    }
    for (const Value& pair : Elements(context, given)) {
      const std::vector<Value> two = Elements(context, pair);
      if (two.size() != 2)
        Fail("function '{}' is given {} values, expected a key and its value", name, two.size());
      Put(context, items, two[0], two[1]);
    }
  }
  for (const auto& [key, value] : arguments.named) Put(context, items, context.New(key), value);
  return items;
}

}  // namespace

bool HasMethod(const Value& value, std::string_view name) {
  if (As<Text>(value) != nullptr) return IsAmong(kTextMethods, name);
  if (As<Dict>(value) != nullptr) return IsAmong(kDictMethods, name);
  return As<LoopState>(value) != nullptr && name == "cycle";
}

void RefuseForeignMethod(const Value& value, std::string_view name) {
  const bool foreign = As<Text>(value) != nullptr   ? IsAmong(kForeignOfText, name)
                       : As<Dict>(value) != nullptr ? IsAmong(kForeignOfDict, name)
                       : As<List>(value) != nullptr ? IsAmong(kForeignOfList, name)
                                                    : false;
  if (!foreign) return;
  if (As<Text>(value) != nullptr)
    Fail("method '{}' of a text is not known; known are {}", name, fmt::join(kTextMethods, ", "));
  if (As<Dict>(value) != nullptr)
    Fail("method '{}' of a dict is not known; known are {}", name, fmt::join(kDictMethods, ", "));
  Fail("method '{}' of a list is not known; lists do not change, join them by '+'", name);
}

Value CallMethod(const Context& context, const Value& self, const std::string& name,
                 const Arguments& arguments) {
  if (const Text* text = As<Text>(self)) return TextMethod(context, *text, name, arguments).Call();
  if (const Dict* dict = As<Dict>(self)) return CallDictMethod(context, *dict, name, arguments);
  const LoopState* loop = As<LoopState>(self);
  MICA_CHECK(loop != nullptr);
  if (arguments.positional.empty()) Fail("loop.cycle has no values");
  return arguments.positional[loop->index0 % arguments.positional.size()];
}

bool HasFunction(std::string_view name) {
  constexpr std::string_view kForeign[] = {"cycler", "joiner", "lipsum"};
  constexpr std::string_view kFunctions[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};
  if (IsAmong(kForeign, name))
    Fail("function '{}' is not known; known are {}", name, fmt::join(kFunctions, ", "));
  return IsAmong(kFunctions, name);
}

Value CallFunction(const Context& context, const std::string& name, const Arguments& arguments) {
  if (name == "range") return Range(context, arguments);
  if (name == "dict") return context.New(Pairs(context, name, arguments));
  if (name == "namespace") {
    auto space = std::make_shared<Namespace>(Namespace{{}, Holding(context.budget, sizeof(Namespace))});
    for (auto& [key, value] : Pairs(context, name, arguments)) {
      const Text* text = As<Text>(key);
      if (text != nullptr) space->values[text->bytes()] = value;
    }
    return space;
  }
  if (name == "raise_exception") {
    const Bound bound("function 'raise_exception'", arguments, {"message"}, 1);
    throw Refusal(ToText(context, bound[0]).bytes());
  }
  const Bound bound("function 'strftime_now'", arguments, {"format"}, 1);
  const std::string format = bound.TextOr(0, "").bytes();
  if (format.size() > 1000) Fail("function 'strftime_now' has a format of more than 1000 bytes");
  std::tm local{};
  ::localtime_r(&context.now, &local);
  std::string text(20'000, '\0');
  // The blank makes a result that is empty differ from one that does not fit.
  text.resize(std::strftime(text.data(), text.size(), (format + " ").c_str(), &local));
  if (text.empty() || FirstInvalidUtf8(text) != std::string_view::npos)
    Fail("function 'strftime_now' cannot write the format '{}'", Printable(format, 40));
  text.pop_back();
  return context.New(std::move(text));
}

}  // namespace mica::jinja
