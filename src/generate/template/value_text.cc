// Values as text: what {{ }} writes, and JSON.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "generate/template/value.h"
#include "io/text/utf8.h"

namespace mica::jinja {
namespace {

// A text inside of a list, as Python shows it.
void AppendQuoted(const Text& text, Text& to) {
  const bool has_single = text.bytes().find('\'') != std::string::npos;
  const bool has_double = text.bytes().find('"') != std::string::npos;
  const std::string quote = has_single && !has_double ? "\"" : "'";
  to.Append(quote);
  to.Append(text.Mapped([&](std::string_view character) -> std::string {
    const char32_t code = CharacterAt(character, 0).code;
    if (character == quote || code == '\\') return fmt::format("\\{}", character);
    if (code == '\n') return "\\n";
    if (code == '\r') return "\\r";
    if (code == '\t') return "\\t";
    if (IsPrintable(code)) return std::string(character);
    const auto number = static_cast<uint32_t>(code);
    if (number < 0x100) return fmt::format("\\x{:02x}", number);
    if (number < 0x10000) return fmt::format("\\u{:04x}", number);
    return fmt::format("\\U{:08x}", number);
  }));
  to.Append(quote);
}

void AppendRepr(const Context& context, const Value& value, Text& to);

void AppendList(const Context& context, const std::vector<Value>& items, Text& to) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) to.Append(", ");
    AppendRepr(context, items[i], to);
  }
}

// As long as a text grows without being a value yet.
void CheckSize(const Context& context, const Text& text) {
  if (text.size() > context.budget->limits().output_bytes)
    Fail("the template writes more than {} MiB", context.budget->limits().output_bytes >> 20);
}

void AppendRepr(const Context& context, const Value& value, Text& to) {
  context.budget->Step();
  if (const Text* text = As<Text>(value)) {
    context.budget->Read(text->size());
    AppendQuoted(*text, to);
  } else if (const List* list = As<List>(value)) {
    if (list->kind == List::Kind::kList) {
      to.Append("[");
      AppendList(context, list->items, to);
      to.Append("]");
    } else if (list->kind == List::Kind::kTuple) {
      to.Append("(");
      AppendList(context, list->items, to);
      to.Append(list->items.size() == 1 ? ",)" : ")");
    } else {
      Fail("{} is written as a text; make a list of it first (filter 'list')", KindOf(value));
    }
  } else if (const Dict* dict = As<Dict>(value)) {
    to.Append("{");
    bool first = true;
    for (const auto& [key, one] : dict->items) {
      if (!std::exchange(first, false)) to.Append(", ");
      AppendRepr(context, key, to);
      to.Append(": ");
      AppendRepr(context, one, to);
    }
    to.Append("}");
  } else if (const auto* truth = std::get_if<bool>(&value)) {
    to.Append(*truth ? "True" : "False");
  } else if (const auto* whole = std::get_if<int64_t>(&value)) {
    to.Append(std::to_string(*whole));
  } else if (const auto* number = std::get_if<double>(&value)) {
    to.Append(FloatText(*number));
  } else if (IsNone(value)) {
    to.Append("None");
  } else if (IsUndefined(value)) {
    to.Append("Undefined");
  } else {
    Fail("{} is written as a text; it has none", KindOf(value));
  }
  CheckSize(context, to);
}

Text JsonString(const Text& text) {
  Text out;
  out.Append("\"");
  out.Append(text.Mapped([](std::string_view character) -> std::string {
    const auto code = static_cast<uint8_t>(character[0]);
    switch (code) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\f':
        return "\\f";
      case '\b':
        return "\\b";
      default:
        return code < 0x20 ? fmt::format("\\u{:04x}", code) : std::string(character);
    }
  }));
  out.Append("\"");
  return out;
}

std::string JsonNumber(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return FloatText(value);
}

class JsonWriter {
 public:
  JsonWriter(const Context& context, const JsonStyle& style) : context_(context), style_(style) {}

  void Write(const Value& value, int level) {
    context_.budget->Step();
    if (const Text* text = As<Text>(value)) {
      context_.budget->Read(text->size());
      out.Append(JsonString(*text));
    } else if (const List* list = As<List>(value); list != nullptr && list->kind <= List::Kind::kTuple) {
      WriteAll("[", "]", list->items, level, [&](const Value& item) { Write(item, level + 1); });
    } else if (const Dict* dict = As<Dict>(value)) {
      WriteAll("{", "}", Sorted(*dict), level, [&](const auto& item) {
        WriteKey(item.first);
        out.Append(style_.key_separator);
        Write(item.second, level + 1);
      });
    } else if (const auto* truth = std::get_if<bool>(&value)) {
      out.Append(*truth ? "true" : "false");
    } else if (const auto* whole = std::get_if<int64_t>(&value)) {
      out.Append(std::to_string(*whole));
    } else if (const auto* number = std::get_if<double>(&value)) {
      out.Append(JsonNumber(*number));
    } else if (IsNone(value)) {
      out.Append("null");
    } else {
      Fail("tojson: {} has no form in JSON", KindOf(value));
    }
    CheckSize(context_, out);
  }

  Text out;

 private:
  using Items = std::vector<std::pair<Value, Value>>;

  template <typename All, typename WriteOne>
  void WriteAll(const std::string& open, const std::string& close, const All& items, int level,
                const WriteOne& write) {
    out.Append(open);
    bool first = true;
    for (const auto& item : items) {
      if (!std::exchange(first, false)) out.Append(style_.item_separator);
      NewLine(level + 1);
      write(item);
    }
    if (!items.empty()) NewLine(level);
    out.Append(close);
  }

  void NewLine(int level) {
    if (!style_.indent) return;
    out.Append("\n");
    context_.budget->Read(style_.indent->size() * static_cast<size_t>(level));
    for (int i = 0; i < level; ++i) out.Append(*style_.indent);
    CheckSize(context_, out);
  }

  Items Sorted(const Dict& dict) const {
    Items items = dict.items;
    if (style_.sort_keys) {
      context_.budget->Step(items.size() * 20);
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto& a, const auto& b) { return Less(context_, a.first, b.first); });
    }
    return items;
  }

  void WriteKey(const Value& key) {
    if (const Text* text = As<Text>(key)) {
      context_.budget->Read(text->size());
      out.Append(JsonString(*text));
      return;
    }
    if (!IsNone(key) && !NumberOf(key)) Fail("tojson: {} is no key of JSON", KindOf(key));
    out.Append("\"");
    Write(key, 0);
    out.Append("\"");
  }

  const Context& context_;
  const JsonStyle& style_;
};

}  // namespace

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  if (value == 0) return std::signbit(value) ? "-0.0" : "0.0";
  char digits[400];
  // The shortest digits that give the value again; Python changes to exponents at other places than C++ does.
  char* end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific).ptr;
  std::string text(digits, end);
  const int written = std::stoi(text.substr(text.find('e') + 1));
  if (written >= -4 && written < 16) {
    end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed).ptr;
    text.assign(digits, end);
    if (text.find('.') == std::string::npos) text += ".0";
  }
  return text;
}

Text ToText(const Context& context, const Value& value) {
  if (const Text* text = As<Text>(value)) return *text;
  if (IsUndefined(value)) return {};
  return Repr(context, value);
}

Text Repr(const Context& context, const Value& value) {
  Text text;
  AppendRepr(context, value, text);
  return text;
}

Text ToJson(const Context& context, const Value& value, const JsonStyle& style) {
  JsonWriter writer(context, style);
  writer.Write(value, 0);
  return std::move(writer.out);
}

}  // namespace mica::jinja
