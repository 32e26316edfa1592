// What operators do to values, as Python has it.
#pragma once

#include <string>
#include <string_view>

#include "generate/template/arguments.h"
#include "generate/template/value.h"

namespace mica::jinja {

// value.name: a method, an attribute or a key; an undefined value where there is none. Throws Error for
// undefined values, and for methods that Python has and this does not.
Value Attribute(const Context& context, const Value& value, const std::string& name);
// value[key]: an element or key, else, of a text, as Attribute.
Value Item(const Context& context, const Value& value, const Value& key);
// value[begin:end:step]; null where absent.
Value Slice(const Context& context, const Value& value, const Value* begin, const Value* end,
            const Value* step);

// "+", "-", "*", "/", "//", "%", "**". Whole numbers have 64 bits; throws Error beyond.
Value Arithmetic(const Context& context, std::string_view op, const Value& a, const Value& b);
// "==", "!=", "<", "<=", ">", ">=", "in", "not in".
bool Compare(const Context& context, std::string_view op, const Value& a, const Value& b);
Value Negated(const Value& value);

// Methods of texts and dicts. Throws Error for wrong arguments.
bool HasMethod(const Value& value, std::string_view name);
Value CallMethod(const Context& context, const Value& self, const std::string& name,
                 const Arguments& arguments);
// Throws Error when Python's value has a method or attribute of that name, which is none of ours.
void RefuseForeignMethod(const Value& value, std::string_view name);

// The functions range, dict, namespace, raise_exception and strftime_now.
bool HasFunction(std::string_view name);
Value CallFunction(const Context& context, const std::string& name, const Arguments& arguments);

}  // namespace mica::jinja
