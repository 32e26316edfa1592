// A template as a tree.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "generate/template/value.h"

namespace mica::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind {
    kConstant,   // value
    kName,       // name
    kList,       // parts
    kTuple,      // parts
    kDict,       // parts: key, value, key, value, ...
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], those absent null
    kCall,       // parts[0](parts[1], ..., named)
    kFilter,     // parts[0]|name(parts[1], ..., named); parts[0] is null where a block is filtered
    kTest,       // parts[0] is name(parts[1], ..., named)
    kNot,        // parts[0]
    kNegate,
    kPlus,
    kAnd,  // parts[0], parts[1]
    kOr,
    kIf,       // parts[0] if parts[1] else parts[2], which may be null
    kCompare,  // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    kConcat,   // parts
    kBinary    // parts[0] operators[0] parts[1]
  };
  Kind kind;
  int line = 0;
  int depth = 1;  // of the expressions inside each other
  Value value = None();
  std::string name;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> operators;  // "==", "in", "not in", "+", "//", ...
};

struct Statement;
using Block = std::vector<std::unique_ptr<const Statement>>;

struct Statement {
  enum class Kind {
    kText,        // text
    kOutput,      // {{ expression }}
    kFor,         // {% for target in expression if condition %} body {% else %} other
    kIf,          // {% if expression %} body {% else %} other; elif is an If in other
    kSet,         // {% set target = expression %}
    kSetBlock,    // {% set target|filters %} body; expression: the filters, or null
    kMacro,       // {% macro name(parameters) %} body
    kWith,        // {% with name = value, ... %} body
    kGeneration,  // {% generation %} body
    kBreak,
    kContinue
  };
  Kind kind;
  int line = 0;
  Text text;
  std::string name;
  ExpressionPtr target, expression, condition;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with their defaults, which may be null
  Block body, other;
  bool takes_more = false, takes_named = false;  // the macro reads varargs, kwargs
};

}  // namespace mica::jinja
