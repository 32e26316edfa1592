// Tokens of expressions to a tree, by Jinja's grammar: one method a rank of operators, the weakest first.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "generate/template/syntax.h"
#include "generate/template/token_reader.h"

namespace mica::jinja {

class ExpressionParser : public TokenReader {
 public:
  using TokenReader::TokenReader;

  // One expression, or several with commas between them, which are a tuple; with_condition: "a if b else c" belongs
  // to it.
  ExpressionPtr Tuple(bool with_condition);
  // "a if b else c", or what binds more strongly.
  ExpressionPtr Condition();
  // What `for` and `set` give values to: a name, several, or (for set) an attribute of a namespace.
  ExpressionPtr Target(bool attributes);
  // Filters, tests and calls behind a value; a null value is that of a filtered block.
  ExpressionPtr Filters(ExpressionPtr value);

 protected:
  int branches_ = 0;  // that may not be taken and that the position is inside of
  bool reads_varargs_ = false, reads_kwargs_ = false;

 private:
  using Kind = Expression::Kind;

  std::unique_ptr<Expression> Make(Kind kind, int line) const;
  template <typename... Parts>
  ExpressionPtr Make(Kind kind, int line, ExpressionPtr first, Parts... more) const;
  // An expression whose parts are there. What is a chain in the source, such as a + b + c or a.b.c, is as
  // deep as it is long.
  ExpressionPtr Done(std::unique_ptr<Expression> expression) const;
  ExpressionPtr Constant(Value value, int line) const;

  bool EndsExpression() const;
  ExpressionPtr Or();
  ExpressionPtr And();
  ExpressionPtr Not();
  ExpressionPtr Compare();
  // Operators of one rank, from left to right.
  template <typename Operand>
  ExpressionPtr Binary(std::initializer_list<std::string_view> operators, const Operand& operand);
  ExpressionPtr Sum();
  ExpressionPtr Concat();
  ExpressionPtr Product();
  ExpressionPtr Unary(bool filters);
  ExpressionPtr Primary();
  ExpressionPtr Whole(const Token& token) const;
  ExpressionPtr Postfix(ExpressionPtr value);
  ExpressionPtr Subscript(ExpressionPtr value, int line);
  // "(a, b, name=c)" into `call`.
  void Arguments(Expression& call);
  ExpressionPtr Call(ExpressionPtr function);
  std::string DottedName(const std::string& what);
  ExpressionPtr Test(ExpressionPtr value, int line);
  void CheckName(const Expression& named) const;
  // Of an expression that was read before it was known whether it stands in a branch.
  void CheckNames(const Expression* expression) const;
};

}  // namespace mica::jinja
