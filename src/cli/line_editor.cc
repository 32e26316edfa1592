#include "cli/line_editor.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cwchar>
#include <iostream>
#include <utility>

#include "base/system.h"

namespace mica {
namespace {

constexpr int kLinesKept = 1000;

char* Prompt(editline* editor) {
  void* prompt = nullptr;
  ::el_get(editor, EL_CLIENTDATA, &prompt);
  return static_cast<char*>(prompt);
}

// One character of the terminal: 1, 0 at its end, -1 when a signal came. libedit's own would wait on after a signal.
int ReadCharacter(editline* editor, wchar_t* character) {
  std::mbstate_t state = {};
  for (;;) {
    char byte = 0;
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got == 0) return 0;
    if (got < 0) {
      // A stopped program that goes on.
      if (errno == EINTR && !InterruptRequested()) {
        ::el_set(editor, EL_REFRESH);
        continue;
      }
      return -1;
    }
    switch (std::mbrtowc(character, &byte, 1, &state)) {
      case static_cast<size_t>(-2):  // the rest of the character is still to come
        continue;
      case static_cast<size_t>(-1):  // no character of this encoding: left out
        state = {};
        continue;
      default:
        return 1;
    }
  }
}

// Characters are UTF-8 whatever the locale says of messages and numbers, which stay those of the "C" locale.
void ReadUtf8() {
  const char* locale = std::setlocale(LC_CTYPE, "");
  if (locale == nullptr || MB_CUR_MAX < 4) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

LineEditor::LineEditor(std::string prompt) : prompt_(std::move(prompt)) {
  if (::isatty(STDIN_FILENO) == 0) return;
  ReadUtf8();
  // What is typed shows where there is a terminal, also when the answers go to a file.
  std::FILE* shown = ::isatty(STDOUT_FILENO) != 0 ? stdout : stderr;
  editor_ = ::el_init("mica", stdin, shown, stderr);
  if (editor_ == nullptr) return;  // lines as the terminal itself edits them
  HistEvent event;
  lines_ = ::history_init();
  ::history(lines_, &event, H_SETSIZE, kLinesKept);
  ::history(lines_, &event, H_SETUNIQUE, 1);
  ::el_set(editor_, EL_CLIENTDATA, prompt_.data());
  ::el_set(editor_, EL_PROMPT, Prompt);
  ::el_set(editor_, EL_EDITOR, "emacs");
  ::el_set(editor_, EL_HIST, ::history, lines_);
  ::el_set(editor_, EL_GETCFN, ReadCharacter);
  ::el_source(editor_, nullptr);
}

LineEditor::~LineEditor() {
  if (editor_ != nullptr) ::el_end(editor_);
  if (lines_ != nullptr) ::history_end(lines_);
}

std::optional<std::string> LineEditor::Edited() {
  for (;;) {
    ::el_resize(editor_);
    int length = 0;
    const char* line = ::el_gets(editor_, &length);
    if (line != nullptr && length > 0 && !InterruptRequested()) {
      std::string text(line, static_cast<size_t>(length));
      while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
      HistEvent event;
      if (!text.empty()) ::history(lines_, &event, H_ENTER, text.c_str());
      return text;
    }
    const bool interrupted = InterruptRequested();
    if (interrupted) ForgetInterrupt();
    if (!interrupted || InterruptRequested()) return std::nullopt;  // the end, or a signal that ends the program
    ::el_reset(editor_);
    std::FILE* shown = nullptr;
    ::el_get(editor_, EL_GETFP, 1, &shown);
    std::fputs("  (Ctrl-D ends the conversation)\n", shown);
  }
}

std::optional<std::string> LineEditor::Next() {
  if (editor_ != nullptr) return Edited();
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

}  // namespace mica
