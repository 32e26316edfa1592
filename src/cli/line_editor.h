#pragma once

#include <optional>
#include <string>

struct editline;  // libedit's
struct history;

namespace mica {

// Lines of stdin, one after the other. In a terminal they are typed behind a prompt and edited as in a shell (libedit,
// with the bindings of the user's ~/.editrc); earlier lines come back by the arrow keys as long as the editor lives.
// Otherwise, such as from a pipe, they are read as they are.
class LineEditor {
 public:
  explicit LineEditor(std::string prompt);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  bool terminal() const { return editor_ != nullptr; }

  // The next line without its end; none at the end of the text, which in a terminal is Ctrl-D. Ctrl-C while a line is
  // typed drops that line. Another signal ends the text: the caller asks ThrowIfInterrupted.
  std::optional<std::string> Next();

 private:
  std::optional<std::string> Edited();

  std::string prompt_;
  struct editline* editor_ = nullptr;
  struct history* lines_ = nullptr;
};

}  // namespace mica
