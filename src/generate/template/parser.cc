#include "generate/template/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/filters.h"
#include "generate/template/lexer.h"
#include "generate/template/tests.h"

namespace mica::jinja {
namespace {

using Kind = Expression::Kind;

constexpr const char* kKnownTags = "for, if, set, macro, with, raw, generation, break, continue";

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& where) : tokens_(std::move(tokens)), where_(where) {}

  Block Run() {
    Block block = Statements({});
    return block;
  }

 private:
  // ---- tokens

  const Token& Now() const { return tokens_[at_]; }
  const Token& Next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool IsOperator(std::string_view text) const {
    return Now().kind == Token::Kind::kOperator && Now().text == text;
  }
  bool IsWord(std::string_view text) const { return Now().kind == Token::Kind::kName && Now().text == text; }
  bool SkipOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Next();
    return true;
  }
  bool SkipWord(std::string_view text) {
    if (!IsWord(text)) return false;
    Next();
    return true;
  }

  [[noreturn]] void RefuseAt(int line, const std::string& what) const {
    Fail("{}, line {}: {}", where_, line, what);
  }

  static std::string Shown(const Token& token) {
    switch (token.kind) {
      case Token::Kind::kText:
      case Token::Kind::kEnd:
        return "the end of the template";
      case Token::Kind::kOutputBegin:
        return "'{{'";
      case Token::Kind::kOutputEnd:
        return "'}}'";
      case Token::Kind::kTagBegin:
        return "'{%'";
      case Token::Kind::kTagEnd:
        return "'%}'";
      default:
        return fmt::format("'{}'", Printable(token.text, 40));
    }
  }

  [[noreturn]] void Unexpected(const std::string& expected) const {
    RefuseAt(Now().line, fmt::format("unexpected {}, expected {}", Shown(Now()), expected));
  }

  void ExpectOperator(const std::string& text) {
    if (!SkipOperator(text)) Unexpected(fmt::format("'{}'", text));
  }

  std::string ExpectName(const std::string& what) {
    if (Now().kind != Token::Kind::kName) Unexpected(what);
    return Next().text;
  }

  void ExpectTagEnd() {
    if (Now().kind != Token::Kind::kTagEnd) Unexpected("'%}'");
    Next();
  }

  // One level of nesting, as long as it lives.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kSyntaxDepth)
        parser_.RefuseAt(parser_.Now().line,
                         fmt::format("the template is nested more than {} levels deep", kSyntaxDepth));
    }
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  // ---- statements

  std::unique_ptr<Statement> Make(Statement::Kind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = Now().line;
    return statement;
  }

  // Up to a tag whose word is one of `ends`, behind which the position then is; with none up to the end.
  Block Statements(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    const int begin = Now().line;
    Block block;
    for (;;) {
      switch (Now().kind) {
        case Token::Kind::kEnd:
          if (ends.size() > 0)
            RefuseAt(begin, fmt::format("the block that begins here has no end, expected '{{% {} %}}'",
                                        *(ends.end() - 1)));
          return block;
        case Token::Kind::kText: {
          auto text = Make(Statement::Kind::kText);
          text->text = Text(Next().text);
          block.push_back(std::move(text));
          break;
        }
        case Token::Kind::kOutputBegin: {
          auto output = Make(Statement::Kind::kOutput);
          Next();
          output->expression = Tuple(true);
          if (Now().kind != Token::Kind::kOutputEnd) Unexpected("'}}'");
          Next();
          block.push_back(std::move(output));
          break;
        }
        default: {  // a tag
          Next();
          if (Now().kind != Token::Kind::kName) Unexpected("the name of a tag");
          if (std::find(ends.begin(), ends.end(), Now().text) != ends.end()) {
            end_ = Next().text;
            return block;
          }
          block.push_back(Tag());
        }
      }
    }
  }

  std::unique_ptr<const Statement> Tag() {
    const std::string tag = Now().text;
    if (tag == "for") return For();
    if (tag == "if") return If();
    if (tag == "set") return Set();
    if (tag == "macro") return Macro();
    if (tag == "with") return With();
    if (tag == "generation") {
      auto statement = Make(Statement::Kind::kGeneration);
      Next();
      ExpectTagEnd();
      const int loops = std::exchange(loops_, 0);
      statement->body = Statements({"endgeneration"});
      loops_ = loops;
      ExpectTagEnd();
      return statement;
    }
    if (tag == "break" || tag == "continue") {
      auto statement = Make(tag == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue);
      if (loops_ == 0) RefuseAt(Now().line, fmt::format("'{}' stands outside of a loop", tag));
      Next();
      ExpectTagEnd();
      return statement;
    }
    if (tag.starts_with("end") || tag == "else" || tag == "elif")
      RefuseAt(Now().line, fmt::format("'{}' ends nothing that is open", Printable(tag, 40)));
    RefuseAt(Now().line, fmt::format("tag '{}' is not known; known are {}", Printable(tag, 40), kKnownTags));
  }

  std::unique_ptr<const Statement> For() {
    auto loop = Make(Statement::Kind::kFor);
    Next();
    loop->target = Target(false);
    if (!SkipWord("in")) Unexpected("'in'");
    loop->expression = Tuple(false);
    if (SkipWord("if")) loop->condition = Condition();
    if (IsWord("recursive"))
      RefuseAt(Now().line, "loops that call themselves ('recursive') are not known; use a macro");
    ExpectTagEnd();
    ++loops_;
    loop->body = Statements({"else", "endfor"});
    --loops_;
    if (end_ == "else") {
      ExpectTagEnd();
      loop->other = Statements({"endfor"});
    }
    ExpectTagEnd();
    return loop;
  }

  std::unique_ptr<const Statement> If() {
    const Level level(*this);
    auto branch = Make(Statement::Kind::kIf);
    Next();
    branch->expression = Tuple(false);
    ExpectTagEnd();
    ++branches_;
    branch->body = Statements({"elif", "else", "endif"});
    if (end_ == "elif") {
      --at_;  // the elif is the if of what is done otherwise, and takes the endif
      branch->other.push_back(If());
      --branches_;
      return branch;
    }
    if (end_ == "else") {
      ExpectTagEnd();
      branch->other = Statements({"endif"});
    }
    --branches_;
    ExpectTagEnd();
    return branch;
  }

  std::unique_ptr<const Statement> Set() {
    auto set = Make(Statement::Kind::kSet);
    Next();
    set->target = Target(true);
    if (SkipOperator("=")) {
      set->expression = Tuple(true);
      ExpectTagEnd();
      return set;
    }
    set->kind = Statement::Kind::kSetBlock;
    if (IsOperator("|")) set->expression = Filters(nullptr);
    ExpectTagEnd();
    set->body = Statements({"endset"});
    ExpectTagEnd();
    return set;
  }

  std::unique_ptr<const Statement> Macro() {
    auto macro = Make(Statement::Kind::kMacro);
    Next();
    macro->name = ExpectName("the name of the macro");
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (!macro->parameters.empty()) ExpectOperator(",");
      std::string name = ExpectName("the name of a parameter");
      ExpressionPtr value;
      if (SkipOperator("=")) {
        value = Condition();
      } else if (!macro->parameters.empty() && macro->parameters.back().second != nullptr) {
        RefuseAt(Now().line, fmt::format("parameter '{}' without a default stands behind one with a default",
                                         Printable(name, 40)));
      }
      macro->parameters.emplace_back(std::move(name), std::move(value));
    }
    Next();
    ExpectTagEnd();
    const int loops = std::exchange(loops_, 0);
    const bool takes_more = std::exchange(reads_varargs_, false);
    const bool takes_named = std::exchange(reads_kwargs_, false);
    macro->body = Statements({"endmacro"});
    macro->takes_more = std::exchange(reads_varargs_, takes_more);
    macro->takes_named = std::exchange(reads_kwargs_, takes_named);
    loops_ = loops;
    ExpectTagEnd();
    return macro;
  }

  std::unique_ptr<const Statement> With() {
    auto with = Make(Statement::Kind::kWith);
    Next();
    while (Now().kind != Token::Kind::kTagEnd) {
      if (!with->parameters.empty()) ExpectOperator(",");
      std::string name = ExpectName("the name of a variable");
      ExpectOperator("=");
      with->parameters.emplace_back(std::move(name), Condition());
    }
    Next();
    with->body = Statements({"endwith"});
    ExpectTagEnd();
    return with;
  }

  // ---- expressions

  std::unique_ptr<Expression> Make(Kind kind, int line) const {
    auto expression = std::make_unique<Expression>();
    expression->kind = kind;
    expression->line = line;
    return expression;
  }

  template <typename... Parts>
  ExpressionPtr Make(Kind kind, int line, ExpressionPtr first, Parts... more) const {
    auto expression = Make(kind, line);
    expression->parts.push_back(std::move(first));
    (expression->parts.push_back(std::move(more)), ...);
    return Done(std::move(expression));
  }

  // An expression whose parts are there. What is a chain in the source, such as a + b + c or a.b.c, is as
  // deep as it is long.
  ExpressionPtr Done(std::unique_ptr<Expression> expression) const {
    int depth = 0;
    for (const ExpressionPtr& part : expression->parts) depth = std::max(depth, part ? part->depth : 0);
    for (const auto& [name, part] : expression->named) depth = std::max(depth, part->depth);
    expression->depth = depth + 1;
    if (expression->depth > kSyntaxDepth)
      RefuseAt(expression->line, fmt::format("an expression is more than {} operators deep", kSyntaxDepth));
    return expression;
  }

  ExpressionPtr Constant(Value value, int line) const {
    auto constant = Make(Kind::kConstant, line);
    constant->value = std::move(value);
    return constant;
  }

  static bool IsReserved(std::string_view name) {
    for (const std::string_view one : {"true", "false", "none", "True", "False", "None"}) {
      if (name == one) return true;
    }
    return false;
  }

  // What `for` and `set` give values to: a name, several, or (for set) an attribute of a namespace.
  ExpressionPtr Target(bool attributes) {
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

  // One expression, or several with commas between them, which are a tuple.
  ExpressionPtr Tuple(bool with_condition) {
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

  bool EndsExpression() const {
    return Now().kind == Token::Kind::kTagEnd || Now().kind == Token::Kind::kOutputEnd || IsOperator(")") ||
           IsWord("if");
  }

  ExpressionPtr Condition() {
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

  ExpressionPtr Or() {
    const Level level(*this);
    ExpressionPtr left = And();
    while (IsWord("or")) {
      const int line = Next().line;
      left = Make(Kind::kOr, line, std::move(left), And());
    }
    return left;
  }

  ExpressionPtr And() {
    ExpressionPtr left = Not();
    while (IsWord("and")) {
      const int line = Next().line;
      left = Make(Kind::kAnd, line, std::move(left), Not());
    }
    return left;
  }

  ExpressionPtr Not() {
    if (!IsWord("not")) return Compare();
    const Level level(*this);
    const int line = Next().line;
    return Make(Kind::kNot, line, Not());
  }

  ExpressionPtr Compare() {
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
      } else if (IsWord("not") && tokens_[at_ + 1].kind == Token::Kind::kName &&
                 tokens_[at_ + 1].text == "in") {
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

  // Operators of one rank, from left to right.
  template <typename Operand>
  ExpressionPtr Binary(std::initializer_list<std::string_view> operators, const Operand& operand) {
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

  ExpressionPtr Sum() {
    return Binary({"+", "-"}, [&] { return Concat(); });
  }

  ExpressionPtr Concat() {
    const int line = Now().line;
    ExpressionPtr first = Product();
    if (!IsOperator("~")) return first;
    auto concat = Make(Kind::kConcat, line);
    concat->parts.push_back(std::move(first));
    while (SkipOperator("~")) concat->parts.push_back(Product());
    return Done(std::move(concat));
  }

  ExpressionPtr Product() {
    return Binary({"*", "/", "//", "%"}, [&] { return Binary({"**"}, [&] { return Unary(true); }); });
  }

  ExpressionPtr Unary(bool filters) {
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

  ExpressionPtr Primary() {
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

  ExpressionPtr Whole(const Token& token) const {
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

  ExpressionPtr Postfix(ExpressionPtr value) {
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

  ExpressionPtr Subscript(ExpressionPtr value, int line) {
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

  // "(a, b, name=c)" into `call`.
  void Arguments(Expression& call) {
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
      if (Now().kind == Token::Kind::kName && tokens_[at_ + 1].kind == Token::Kind::kOperator &&
          tokens_[at_ + 1].text == "=") {
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

  ExpressionPtr Call(ExpressionPtr function) {
    auto call = Make(Kind::kCall, Now().line);
    call->parts.push_back(std::move(function));
    Arguments(*call);
    return Done(std::move(call));
  }

  std::string DottedName(const std::string& what) {
    std::string name = ExpectName(what);
    while (SkipOperator(".")) name = fmt::format("{}.{}", name, ExpectName(what));
    return name;
  }

  // Filters, tests and calls behind a value; a null value is that of a filtered block.
  ExpressionPtr Filters(ExpressionPtr value) {
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

  ExpressionPtr Test(ExpressionPtr value, int line) {
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

  void CheckName(const Expression& named) const {
    try {
      if (named.kind == Kind::kFilter) FilterOf(named.name);
      if (named.kind == Kind::kTest) TestOf(named.name);
    } catch (const Error& failure) {
      RefuseAt(named.line, failure.what());
    }
  }

  // Of an expression that was read before it was known whether it stands in a branch.
  void CheckNames(const Expression* expression) const {
    if (branches_ > 0 || expression == nullptr) return;
    CheckName(*expression);
    if (expression->kind == Kind::kIf) return;
    for (const ExpressionPtr& part : expression->parts) CheckNames(part.get());
    for (const auto& [name, part] : expression->named) CheckNames(part.get());
  }

  const std::vector<Token> tokens_;
  const std::string& where_;
  size_t at_ = 0;
  std::string end_;  // the word of the tag that ended the last block
  int depth_ = 0;
  int loops_ = 0, branches_ = 0;  // that the position is inside of
  bool reads_varargs_ = false, reads_kwargs_ = false;
};

}  // namespace

Block ParseTemplate(std::string_view source, const std::string& where) {
  if (source.size() > kSourceBytes)
    Fail("{}: has {} bytes, expected at most {}", where, source.size(), kSourceBytes);
  if (const size_t at = FirstInvalidUtf8(source); at != std::string_view::npos)
    Fail("{}: byte {} is not valid UTF-8", where, at);
  return Parser(Tokenize(source, where), where).Run();
}

}  // namespace mica::jinja
