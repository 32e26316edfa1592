// A place in a list of tokens, what stands there, and refusals that name its line.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/lexer.h"
#include "generate/template/syntax.h"

namespace mica::jinja {

class TokenReader {
 public:
  TokenReader(std::vector<Token> tokens, const std::string& where) : tokens_(std::move(tokens)), where_(where) {}

  const Token& Now() const { return tokens_[at_]; }
  // The token behind this one.
  const Token& Coming() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
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

  // Back to the token before, such as a word that is read again as the beginning of something else.
  void Back() { --at_; }

  // One level of nesting, as long as it lives.
  class Level {
   public:
    explicit Level(TokenReader& reader) : reader_(reader) {
      if (++reader_.depth_ > kSyntaxDepth)
        reader_.RefuseAt(reader_.Now().line,
                         fmt::format("the template is nested more than {} levels deep", kSyntaxDepth));
    }
    ~Level() { --reader_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    TokenReader& reader_;
  };

 private:
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

  const std::vector<Token> tokens_;
  const std::string& where_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace mica::jinja
