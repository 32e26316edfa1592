#include "generate/template/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/filters.h"
#include "generate/template/tests.h"

namespace mica::jinja {
namespace {

bool IsReserved(std::string_view name) {
  for (const std::string_view one : {"true", "false", "none", "True", "False", "None"}) {
    if (name == one) return true;
  }
  return false;
}

}  // namespace

std::unique_ptr<Expression> ExpressionParser::Make(Kind kind, int line) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  return expression;
}

template <typename... Parts>
ExpressionPtr ExpressionParser::Make(Kind kind, int line, ExpressionPtr first, Parts... more) const {
  auto expression = Make(kind, line);
  expression->parts.push_back(std::move(first));
  (expression->parts.push_back(std::move(more)), ...);
  return Done(std::move(expression));
}

ExpressionPtr ExpressionParser::Done(std::unique_ptr<Expression> expression) const {
  int depth = 0;
  for (const ExpressionPtr& part : expression->parts) depth = std::max(depth, part ? part->depth : 0);
  for (const auto& [name, part] : expression->named) depth = std::max(depth, part->depth);
  expression->depth = depth + 1;
  if (expression->depth > kSyntaxDepth)
    RefuseAt(expression->line, fmt::format("an expression is more than {} operators deep", kSyntaxDepth));
  return expression;
}

ExpressionPtr ExpressionParser::Constant(Value value, int line) const {
  auto constant = Make(Kind::kConstant, line);
  constant->value = std::move(value);
  return constant;
}

ExpressionPtr ExpressionParser::Target(bool attributes) {
  const Level level(*this);
  const int line = Now().line;
  std::vector<ExpressionPtr> targets;
  bool tuple = false;
  do {
    if (!targets.empty() && Now().kind != Token::Kind::kName && !IsOperator("(")) break;
    if (SkipOperator("(")) {
      targets.push_back(Target(false));
      ExpectOperator(")");
    } else {
      const int name_line = Now().line;
      auto name = Make(Kind::kName, name_line);
      name->name = ExpectName("the name of a variable");
      if (IsReserved(name->name))
        RefuseAt(name_line, fmt::format("'{}' is a value and cannot be given another", name->name));
      if (attributes && SkipOperator(".")) {
        auto attribute = Make(Kind::kAttribute, name_line);
        attribute->name = ExpectName("the name of an attribute");
        attribute->parts.push_back(std::move(name));
        targets.push_back(std::move(attribute));
      } else {
        targets.push_back(std::move(name));
      }
    }
    if (IsOperator(",")) tuple = true;
  } while (SkipOperator(","));
  if (!tuple) return std::move(targets[0]);
  auto list = Make(Kind::kTuple, line);
  list->parts = std::move(targets);
  return Done(std::move(list));
}

ExpressionPtr ExpressionParser::Tuple(bool with_condition) {
  const int line = Now().line;
  const auto one = [&] { return with_condition ? Condition() : Or(); };
  ExpressionPtr first = one();
  if (!IsOperator(",")) return first;
  auto tuple = Make(Kind::kTuple, line);
  tuple->parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    if (EndsExpression()) break;
    tuple->parts.push_back(one());
  }
  return Done(std::move(tuple));
}

bool ExpressionParser::EndsExpression() const {
  return Now().kind == Token::Kind::kTagEnd || Now().kind == Token::Kind::kOutputEnd || IsOperator(")") ||
         IsWord("if");
}

ExpressionPtr ExpressionParser::Condition() {
  const Level level(*this);
  const int line = Now().line;
  ++branches_;
  ExpressionPtr value = Or();
  --branches_;
  // Whether the value is taken is known only behind it.
  if (!IsWord("if")) CheckNames(value.get());
  while (SkipWord("if")) {
    ++branches_;
    ExpressionPtr condition = Or();
    ExpressionPtr other = SkipWord("else") ? Condition() : nullptr;
    --branches_;
    value = Make(Kind::kIf, line, std::move(value), std::move(condition), std::move(other));
  }
  return value;
}

ExpressionPtr ExpressionParser::Or() {
  const Level level(*this);
  ExpressionPtr left = And();
  while (IsWord("or")) {
    const int line = Next().line;
    left = Make(Kind::kOr, line, std::move(left), And());
  }
  return left;
}

ExpressionPtr ExpressionParser::And() {
  ExpressionPtr left = Not();
  while (IsWord("and")) {
    const int line = Next().line;
    left = Make(Kind::kAnd, line, std::move(left), Not());
  }
  return left;
}

ExpressionPtr ExpressionParser::Not() {
  if (!IsWord("not")) return Compare();
  const Level level(*this);
  const int line = Next().line;
  return Make(Kind::kNot, line, Not());
}

ExpressionPtr ExpressionParser::Compare() {
  const int line = Now().line;
  ExpressionPtr first = Sum();
  auto compare = Make(Kind::kCompare, line);
  for (;;) {
    std::string op;
    for (const std::string_view one : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (IsOperator(one)) op = one;
    }
    if (!op.empty()) {
      Next();
    } else if (SkipWord("in")) {
      op = "in";
    } else if (IsWord("not") && Coming().kind == Token::Kind::kName &&
               Coming().text == "in") {
      Next();
      Next();
      op = "not in";
    } else {
      break;
    }
    if (compare->parts.empty()) compare->parts.push_back(std::move(first));
    compare->operators.push_back(op);
    compare->parts.push_back(Sum());
  }
  if (compare->parts.empty()) return first;
  return Done(std::move(compare));
}

template <typename Operand>
ExpressionPtr ExpressionParser::Binary(std::initializer_list<std::string_view> operators, const Operand& operand) {
  ExpressionPtr left = operand();
  for (;;) {
    std::string op;
    for (const std::string_view one : operators) {
      if (IsOperator(one)) op = one;
    }
    if (op.empty()) return left;
    const int line = Next().line;
    auto binary = Make(Kind::kBinary, line);
    binary->operators.push_back(op);
    binary->parts.push_back(std::move(left));
    binary->parts.push_back(operand());
    left = Done(std::move(binary));
  }
}

ExpressionPtr ExpressionParser::Sum() {
  return Binary({"+", "-"}, [&] { return Concat(); });
}

ExpressionPtr ExpressionParser::Concat() {
  const int line = Now().line;
  ExpressionPtr first = Product();
  if (!IsOperator("~")) return first;
  auto concat = Make(Kind::kConcat, line);
  concat->parts.push_back(std::move(first));
  while (SkipOperator("~")) concat->parts.push_back(Product());
  return Done(std::move(concat));
}

ExpressionPtr ExpressionParser::Product() {
  return Binary({"*", "/", "//", "%"}, [&] { return Binary({"**"}, [&] { return Unary(true); }); });
}

ExpressionPtr ExpressionParser::Unary(bool filters) {
  const Level level(*this);
  const int line = Now().line;
  ExpressionPtr value;
  if (SkipOperator("-"))
    value = Make(Kind::kNegate, line, Unary(false));
  else if (SkipOperator("+"))
    value = Make(Kind::kPlus, line, Unary(false));
  else
    value = Primary();
  value = Postfix(std::move(value));
  if (filters) value = Filters(std::move(value));
  return value;
}

ExpressionPtr ExpressionParser::Primary() {
  const Token& token = Now();
  switch (token.kind) {
    case Token::Kind::kName: {
      const Token& name = Next();
      if (name.text == "true" || name.text == "True") return Constant(true, name.line);
      if (name.text == "false" || name.text == "False") return Constant(false, name.line);
      if (name.text == "none" || name.text == "None") return Constant(None(), name.line);
      if (name.text == "varargs") reads_varargs_ = true;
      if (name.text == "kwargs") reads_kwargs_ = true;
      auto expression = Make(Kind::kName, name.line);
      expression->name = name.text;
      return expression;
    }
    case Token::Kind::kString: {
      std::string text;
      const int line = token.line;
      while (Now().kind == Token::Kind::kString) text += Next().text;
      return Constant(std::make_shared<const Text>(Text(std::move(text))), line);
    }
    case Token::Kind::kWhole:
      return Whole(Next());
    case Token::Kind::kFloat: {
      const Token& number = Next();
      double value = 0;
      std::from_chars(number.text.data(), number.text.data() + number.text.size(), value);
      return Constant(value, number.line);
    }
    default:
      break;
  }
  const int line = token.line;
  if (SkipOperator("(")) {
    if (SkipOperator(")")) return Make(Kind::kTuple, line);
    ExpressionPtr value = Tuple(true);
    ExpectOperator(")");
    return value;
  }
  if (SkipOperator("[")) {
    auto list = Make(Kind::kList, line);
    while (!IsOperator("]")) {
      if (!list->parts.empty()) {
        ExpectOperator(",");
        if (IsOperator("]")) break;
      }
      list->parts.push_back(Condition());
    }
    Next();
    return Done(std::move(list));
  }
  if (SkipOperator("{")) {
    auto dict = Make(Kind::kDict, line);
    while (!IsOperator("}")) {
      if (!dict->parts.empty()) {
        ExpectOperator(",");
        if (IsOperator("}")) break;
      }
      dict->parts.push_back(Condition());
      ExpectOperator(":");
      dict->parts.push_back(Condition());
    }
    Next();
    return Done(std::move(dict));
  }
  Unexpected("a value");
}

ExpressionPtr ExpressionParser::Whole(const Token& token) const {
  int base = 10;
  std::string_view digits = token.text;
  if (digits.size() > 1 && digits[0] == '0' && (digits[1] < '0' || digits[1] > '9')) {
    base = digits[1] == 'x' || digits[1] == 'X' ? 16 : digits[1] == 'o' || digits[1] == 'O' ? 8 : 2;
    digits.remove_prefix(2);
  }
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (failure == std::errc::result_out_of_range)
    RefuseAt(token.line, fmt::format("the number {} is beyond 64 bits", Printable(token.text, 40)));
  if (failure != std::errc() || end != digits.data() + digits.size())
    RefuseAt(token.line, fmt::format("'{}' is no number", Printable(token.text, 40)));
  return Constant(value, token.line);
}

ExpressionPtr ExpressionParser::Postfix(ExpressionPtr value) {
  for (;;) {
    const int line = Now().line;
    if (SkipOperator(".")) {
      if (Now().kind == Token::Kind::kWhole) {
        value = Make(Kind::kItem, line, std::move(value), Whole(Next()));
        continue;
      }
      auto attribute = Make(Kind::kAttribute, line);
      attribute->name = ExpectName("the name of an attribute");
      attribute->parts.push_back(std::move(value));
      value = Done(std::move(attribute));
    } else if (SkipOperator("[")) {
      value = Subscript(std::move(value), line);
    } else if (IsOperator("(")) {
      value = Call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::Subscript(ExpressionPtr value, int line) {
  ExpressionPtr bounds[3];
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    if (!IsOperator(":") && !IsOperator("]")) bounds[i] = Condition();
    if (IsOperator(",")) RefuseAt(Now().line, "several indices in one pair of brackets are not known");
    if (!IsOperator(":")) break;
    if (i == 2) break;
    Next();
    slice = true;
  }
  if (!slice && bounds[0] == nullptr) Unexpected("an index");
  ExpectOperator("]");
  if (!slice) return Make(Kind::kItem, line, std::move(value), std::move(bounds[0]));
  return Make(Kind::kSlice, line, std::move(value), std::move(bounds[0]), std::move(bounds[1]),
              std::move(bounds[2]));
}

void ExpressionParser::Arguments(Expression& call) {
  ExpectOperator("(");
  bool first = true;
  while (!IsOperator(")")) {
    if (!std::exchange(first, false)) {
      ExpectOperator(",");
      if (IsOperator(")")) break;
    }
    if (IsOperator("*") || IsOperator("**"))
      RefuseAt(Now().line,
               fmt::format("arguments unpacked by '{}' are not known; write them one by one", Now().text));
    if (Now().kind == Token::Kind::kName && Coming().kind == Token::Kind::kOperator &&
        Coming().text == "=") {
      std::string name = Next().text;
      Next();
      call.named.emplace_back(std::move(name), Condition());
    } else {
      if (!call.named.empty())
        RefuseAt(Now().line, "an argument without a name stands behind one with a name");
      call.parts.push_back(Condition());
    }
  }
  Next();
}

ExpressionPtr ExpressionParser::Call(ExpressionPtr function) {
  auto call = Make(Kind::kCall, Now().line);
  call->parts.push_back(std::move(function));
  Arguments(*call);
  return Done(std::move(call));
}

std::string ExpressionParser::DottedName(const std::string& what) {
  std::string name = ExpectName(what);
  while (SkipOperator(".")) name = fmt::format("{}.{}", name, ExpectName(what));
  return name;
}

ExpressionPtr ExpressionParser::Filters(ExpressionPtr value) {
  const bool block = value == nullptr;
  for (;;) {
    const int line = Now().line;
    if (SkipOperator("|")) {
      auto filter = Make(Kind::kFilter, line);
      filter->name = DottedName("the name of a filter");
      filter->parts.push_back(std::move(value));
      if (IsOperator("(")) Arguments(*filter);
      if (branches_ == 0) CheckName(*filter);
      value = Done(std::move(filter));
    } else if (!block && SkipWord("is")) {
      value = Test(std::move(value), line);
    } else if (!block && IsOperator("(")) {
      value = Call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::Test(ExpressionPtr value, int line) {
  const bool negated = SkipWord("not");
  auto test = Make(Kind::kTest, line);
  test->name = DottedName("the name of a test");
  test->parts.push_back(std::move(value));
  const Token::Kind kind = Now().kind;
  if (IsOperator("(")) {
    Arguments(*test);
  } else if (((kind == Token::Kind::kName && !IsWord("else") && !IsWord("or") && !IsWord("and")) ||
              kind == Token::Kind::kString || kind == Token::Kind::kWhole || kind == Token::Kind::kFloat ||
              IsOperator("[") || IsOperator("{"))) {
    if (IsWord("is")) RefuseAt(Now().line, "a test stands behind a test; join them by 'and'");
    // Jinja takes any word for the test's argument, also the 'if' and 'in' that people mean otherwise.
    test->parts.push_back(Postfix(Primary()));
  }
  if (branches_ == 0) CheckName(*test);
  ExpressionPtr done = Done(std::move(test));
  return negated ? Make(Kind::kNot, line, std::move(done)) : std::move(done);
}

void ExpressionParser::CheckName(const Expression& named) const {
  try {
    if (named.kind == Kind::kFilter) FilterOf(named.name);
    if (named.kind == Kind::kTest) TestOf(named.name);
  } catch (const Error& failure) {
    RefuseAt(named.line, failure.what());
  }
}

void ExpressionParser::CheckNames(const Expression* expression) const {
  if (branches_ > 0 || expression == nullptr) return;
  CheckName(*expression);
  if (expression->kind == Kind::kIf) return;
  for (const ExpressionPtr& part : expression->parts) CheckNames(part.get());
  for (const auto& [name, part] : expression->named) CheckNames(part.get());
}

}  // namespace mica::jinja
