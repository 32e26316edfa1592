#include "generate/template/evaluator.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/access.h"
#include "generate/template/filters.h"
#include "generate/template/refusal.h"
#include "generate/template/tests.h"

namespace mica::jinja {

struct Scope {
  std::shared_ptr<Scope> outer;
  std::map<std::string, Value, std::less<>> values;
};

struct Macro {
  const Statement* statement;
  std::shared_ptr<Scope> scope;  // in which it was defined
};

namespace {

enum class Flow { kNext, kBreak, kContinue };

class Evaluator {
 public:
  Evaluator(std::map<std::string, Value, std::less<>> variables, const Context& context)
      : context_(context), scope_(std::make_shared<Scope>(Scope{nullptr, std::move(variables)})) {
    kept_scopes_.push_back(scope_);
  }
  // Namespaces and scopes may hold each other in circles, and in chains of any length.
  ~Evaluator() {
    for (const auto& scope : kept_scopes_) scope->values.clear();
    for (const auto& space : kept_spaces_) std::exchange(space->values, {}).clear();
  }
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  Text Run(const Block& block) {
    Text output;
    output_ = &output;
    Execute(block);
    return output;
  }
  int line() const { return line_; }

 private:
  // One level of evaluation, as long as it lives.
  class Level {
   public:
    explicit Level(Evaluator& evaluator) : evaluator_(evaluator) {
      evaluator_.context_.budget->Step();
      if (++evaluator_.depth_ > evaluator_.context_.budget->limits().depth) {
        --evaluator_.depth_;
        Fail("the template calls itself, or is nested, more than {} levels deep",
             evaluator_.context_.budget->limits().depth);
      }
    }
    ~Level() { --evaluator_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Evaluator& evaluator_;
  };

  // A scope inside of `outer`, as long as it lives.
  class Inside {
   public:
    Inside(Evaluator& evaluator, const std::shared_ptr<Scope>& outer)
        : evaluator_(evaluator), before_(evaluator.scope_) {
      evaluator_.scope_ = std::make_shared<Scope>(Scope{outer, {}});
    }
    ~Inside() { evaluator_.scope_ = before_; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Evaluator& evaluator_;
    std::shared_ptr<Scope> before_;
  };

  // ---- statements

  void Write(const Text& text) {
    const uint64_t most = context_.budget->limits().output_bytes;
    context_.budget->Read(text.size());
    if (output_->size() + text.size() > most) Fail("the template writes more than {} MiB", most >> 20);
    output_->Append(text);
  }

  Flow Execute(const Block& block) {
    for (const auto& statement : block) {
      const int line = std::exchange(line_, statement->line);
      const Flow flow = Execute(*statement);
      line_ = line;
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow Execute(const Statement& statement) {
    const Level level(*this);
    switch (statement.kind) {
      case Statement::Kind::kText:
        Write(statement.text);
        return Flow::kNext;
      case Statement::Kind::kOutput: {
        const Value value = Evaluate(*statement.expression);
        if (const Text* text = As<Text>(value))
          Write(*text);
        else
          Write(ToText(context_, value));
        return Flow::kNext;
      }
      case Statement::Kind::kIf:
        return Execute(Truth(Evaluate(*statement.expression)) ? statement.body : statement.other);
      case Statement::Kind::kFor:
        return For(statement);
      case Statement::Kind::kSet:
        Assign(*statement.target, Evaluate(*statement.expression));
        return Flow::kNext;
      case Statement::Kind::kSetBlock: {
        Value value = context_.New(Captured(statement.body));
        if (statement.expression != nullptr) value = FilterBlock(*statement.expression, value);
        Assign(*statement.target, value);
        return Flow::kNext;
      }
      case Statement::Kind::kMacro: {
        kept_scopes_.push_back(scope_);
        auto macro = std::make_shared<const Macro>(Macro{&statement, scope_});
        scope_->values[statement.name] = std::make_shared<const Callable>(
            Callable{Callable::Kind::kMacro, statement.name, None(), std::move(macro)});
        return Flow::kNext;
      }
      case Statement::Kind::kWith: {
        std::vector<Value> values;
        for (const auto& [name, value] : statement.parameters) values.push_back(Evaluate(*value));
        const Inside inside(*this, scope_);
        for (size_t i = 0; i < values.size(); ++i) scope_->values[statement.parameters[i].first] = values[i];
        return Execute(statement.body);
      }
      case Statement::Kind::kGeneration: {
        const Inside inside(*this, scope_);
        return Execute(statement.body);
      }
      case Statement::Kind::kBreak:
        return Flow::kBreak;
      case Statement::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Flow For(const Statement& loop) {
    std::vector<Value> items = Elements(context_, Evaluate(*loop.expression));
    if (loop.condition != nullptr) {
      std::vector<Value> kept;
      for (Value& item : items) {
        const Inside inside(*this, scope_);
        Assign(*loop.target, item);
        if (Truth(Evaluate(*loop.condition))) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      const Inside inside(*this, scope_);
      return Execute(loop.other);
    }
    const Value list = context_.New(std::move(items));
    const auto shared = std::get<std::shared_ptr<const List>>(list);
    for (size_t i = 0; i < shared->items.size(); ++i) {
      context_.budget->Step();
      const Inside inside(*this, scope_);
      // Each turn has a state of its own, since the template may keep it.
      scope_->values["loop"] = std::make_shared<const LoopState>(LoopState{shared, i, 0});
      Assign(*loop.target, shared->items[i]);
      if (Execute(loop.body) == Flow::kBreak) break;
    }
    return Flow::kNext;
  }

  void Assign(const Expression& target, const Value& value) {
    switch (target.kind) {
      case Expression::Kind::kName:
        scope_->values[target.name] = value;
        return;
      case Expression::Kind::kTuple: {
        const std::vector<Value> values = Elements(context_, value);
        if (values.size() != target.parts.size())
          Fail("{} values are to be taken apart, expected {}", values.size(), target.parts.size());
        for (size_t i = 0; i < values.size(); ++i) Assign(*target.parts[i], values[i]);
        return;
      }
      default: {
        const Value holder = Evaluate(*target.parts[0]);
        const auto* space = std::get_if<std::shared_ptr<Namespace>>(&holder);
        if (space == nullptr)
          Fail("an attribute of {} is set; only those of a namespace can be", KindOf(holder));
        if (!(*space)->values.contains(target.name)) context_.budget->Step(8);
        (*space)->values[target.name] = value;
      }
    }
  }

  // What a block writes, as a text of its own.
  Text Captured(const Block& block) {
    Text text;
    Text* const before = std::exchange(output_, &text);
    const Restored restored{output_, before};
    const Inside inside(*this, scope_);
    Execute(block);
    return text;
  }
  struct Restored {
    Text*& output;
    Text* before;
    ~Restored() { output = before; }
  };

  // The filters of a block around its text: the innermost has no input of its own.
  Value FilterBlock(const Expression& filter, const Value& text) {
    const Value input = filter.parts[0] == nullptr ? text : FilterBlock(*filter.parts[0], text);
    return Filtered(filter, input);
  }

  // ---- expressions

  Value Evaluate(const Expression& expression) {
    const Level level(*this);
    const int line = std::exchange(line_, expression.line);
    Value value = ValueOf(expression);
    line_ = line;
    return value;
  }

  std::vector<Value> EvaluateAll(const std::vector<ExpressionPtr>& parts, size_t from = 0) {
    std::vector<Value> values;
    for (size_t i = from; i < parts.size(); ++i) values.push_back(Evaluate(*parts[i]));
    return values;
  }

  Value ValueOf(const Expression& expression) {
    const auto part = [&](size_t i) { return Evaluate(*expression.parts[i]); };
    switch (expression.kind) {
      case Expression::Kind::kConstant:
        return expression.value;
      case Expression::Kind::kName:
        return Lookup(expression.name);
      case Expression::Kind::kList:
        return context_.New(EvaluateAll(expression.parts));
      case Expression::Kind::kTuple:
        return context_.New(EvaluateAll(expression.parts), List::Kind::kTuple);
      case Expression::Kind::kDict:
        return MakeDict(expression);
      case Expression::Kind::kAttribute:
        return Attribute(context_, part(0), expression.name);
      case Expression::Kind::kItem: {
        const Value value = part(0);
        return Item(context_, value, part(1));
      }
      case Expression::Kind::kSlice:
        return SliceOf(expression);
      case Expression::Kind::kCall:
        return Call(expression);
      case Expression::Kind::kFilter:
        return Filtered(expression, part(0));
      case Expression::Kind::kTest: {
        const Test test = TestOf(expression.name);
        const Value value = part(0);
        return test(context_, value, ArgumentsOf(expression));
      }
      case Expression::Kind::kNot:
        return !Truth(part(0));
      case Expression::Kind::kNegate:
        return Negated(part(0));
      case Expression::Kind::kPlus: {
        const Value value = part(0);
        if (IsUndefined(value)) RefuseUndefined(value);
        if (!NumberOf(value)) Fail("'+' has no meaning in front of {}", KindOf(value));
        return WholeOf(value) ? Value(*WholeOf(value)) : value;
      }
      case Expression::Kind::kAnd: {
        Value left = part(0);
        return Truth(left) ? part(1) : left;
      }
      case Expression::Kind::kOr: {
        Value left = part(0);
        return Truth(left) ? left : part(1);
      }
      case Expression::Kind::kIf:
        if (Truth(part(1))) return part(0);
        if (expression.parts[2] != nullptr) return part(2);
        return MakeUndefined("an inline if without an else is not taken");
      case Expression::Kind::kCompare:
        return Compared(expression);
      case Expression::Kind::kConcat: {
        Text text;
        for (const Value& value : EvaluateAll(expression.parts)) text.Append(ToText(context_, value));
        return context_.New(std::move(text));
      }
      case Expression::Kind::kBinary: {
        const Value left = part(0);
        return Arithmetic(context_, expression.operators[0], left, part(1));
      }
    }
    return None();
  }

  Value Lookup(const std::string& name) {
    for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->outer.get()) {
      context_.budget->Step();
      if (const auto found = scope->values.find(name); found != scope->values.end()) return found->second;
    }
    if (HasFunction(name))
      return std::make_shared<const Callable>(Callable{Callable::Kind::kFunction, name, None(), nullptr});
    return MakeUndefined(fmt::format("'{}' is undefined", Printable(name, 40)));
  }

  Value MakeDict(const Expression& expression) {
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i < expression.parts.size(); i += 2) {
      Value key = Evaluate(*expression.parts[i]);
      Put(context_, items, std::move(key), Evaluate(*expression.parts[i + 1]));
    }
    return context_.New(std::move(items));
  }

  Value SliceOf(const Expression& expression) {
    const Value value = Evaluate(*expression.parts[0]);
    Value bounds[3];
    const Value* given[3] = {};
    for (size_t i = 0; i < 3; ++i) {
      if (expression.parts[i + 1] == nullptr) continue;
      bounds[i] = Evaluate(*expression.parts[i + 1]);
      given[i] = &bounds[i];
    }
    return Slice(context_, value, given[0], given[1], given[2]);
  }

  bool Compared(const Expression& expression) {
    Value left = Evaluate(*expression.parts[0]);
    for (size_t i = 0; i < expression.operators.size(); ++i) {
      Value right = Evaluate(*expression.parts[i + 1]);
      if (!Compare(context_, expression.operators[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  // Those behind parts[0].
  Arguments ArgumentsOf(const Expression& expression) {
    Arguments arguments{EvaluateAll(expression.parts, 1), {}};
    for (const auto& [name, value] : expression.named) arguments.named.emplace_back(name, Evaluate(*value));
    return arguments;
  }

  Value Filtered(const Expression& filter, const Value& input) {
    return FilterOf(filter.name)(context_, input, ArgumentsOf(filter));
  }

  Value Call(const Expression& expression) {
    const Value function = Evaluate(*expression.parts[0]);
    if (IsUndefined(function)) RefuseUndefined(function);
    const Callable* callable = As<Callable>(function);
    if (callable == nullptr) Fail("{} is called, expected a function", KindOf(function));
    const Arguments arguments = ArgumentsOf(expression);
    switch (callable->kind) {
      case Callable::Kind::kMethod:
        return CallMethod(context_, callable->self, callable->name, arguments);
      case Callable::Kind::kMacro:
        return CallMacro(*callable->macro, arguments);
      default:
        break;
    }
    Value value = CallFunction(context_, callable->name, arguments);
    if (const auto* space = std::get_if<std::shared_ptr<Namespace>>(&value)) kept_spaces_.push_back(*space);
    return value;
  }

  Value CallMacro(const Macro& macro, const Arguments& arguments) {
    const Statement& statement = *macro.statement;
    const auto& parameters = statement.parameters;
    Text text;
    Text* const before = std::exchange(output_, &text);
    const Restored restored{output_, before};
    const Inside inside(*this, macro.scope);
    std::vector<bool> given(parameters.size());
    for (size_t i = 0; i < std::min(parameters.size(), arguments.positional.size()); ++i) {
      scope_->values[parameters[i].first] = arguments.positional[i];
      given[i] = true;
    }
    std::vector<std::pair<Value, Value>> more;
    for (const auto& [name, value] : arguments.named) {
      const auto at =
          std::find_if(parameters.begin(), parameters.end(),
                       [&, key = &name](const auto& parameter) { return parameter.first == *key; });
      if (at == parameters.end()) {
        if (!statement.takes_named)
          Fail("macro '{}' has no argument '{}'", Printable(statement.name, 40), Printable(name, 40));
        Put(context_, more, context_.New(name), value);
        continue;
      }
      const auto i = static_cast<size_t>(at - parameters.begin());
      if (given[i])
        Fail("macro '{}' has argument '{}' twice", Printable(statement.name, 40), Printable(name, 40));
      scope_->values[name] = value;
      given[i] = true;
    }
    std::vector<Value> beyond;
    if (arguments.positional.size() > parameters.size()) {
      if (!statement.takes_more)
        Fail("macro '{}' has {} arguments, expected at most {}", Printable(statement.name, 40),
             arguments.positional.size(), parameters.size());
      beyond.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(parameters.size()),
                    arguments.positional.end());
    }
    if (statement.takes_more) scope_->values["varargs"] = context_.New(std::move(beyond), List::Kind::kTuple);
    if (statement.takes_named) scope_->values["kwargs"] = context_.New(std::move(more));
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (given[i]) continue;
      scope_->values[parameters[i].first] =
          parameters[i].second != nullptr ? Evaluate(*parameters[i].second)
                                          : MakeUndefined(fmt::format("parameter '{}' was not provided",
                                                                      Printable(parameters[i].first, 40)));
    }
    Execute(statement.body);
    return context_.New(std::move(text));
  }

  const Context context_;
  std::shared_ptr<Scope> scope_;
  Text* output_ = nullptr;
  int depth_ = 0, line_ = 0;
  std::vector<std::shared_ptr<Scope>> kept_scopes_;
  std::vector<std::shared_ptr<Namespace>> kept_spaces_;
};

}  // namespace

Text Evaluate(const Block& block, std::map<std::string, Value, std::less<>> variables, const Context& context,
              const std::string& where) {
  Evaluator evaluator(std::move(variables), context);
  try {
    return evaluator.Run(block);
  } catch (const Refusal& refusal) {
    throw Refusal(fmt::format("{}, line {}: the template refuses the conversation: {}", where,
                              evaluator.line(), Printable(refusal.what(), 400)));
  } catch (const Error& failure) {
    Fail("{}, line {}: {}", where, evaluator.line(), failure.what());
  }
}

}  // namespace mica::jinja
