#include "generate/template/parser.h"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/expression_parser.h"
#include "generate/template/lexer.h"

namespace mica::jinja {
namespace {

constexpr const char* kKnownTags = "for, if, set, macro, with, raw, generation, break, continue";

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block Run() { return Statements({}); }

 private:
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
      Back();  // the elif is the if of what is done otherwise, and takes the endif
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

  std::string end_;  // the word of the tag that ended the last block
  int loops_ = 0;    // that the position is inside of
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
