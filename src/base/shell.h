// Commands that people copy into a shell.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// `word` as a shell reads it back, whatever is in it. Control characters become escapes, so that a name from
// somebody else's file neither ends the word nor reaches the terminal.
std::string ShellWord(std::string_view word);

// A command line as its words, not yet quoted.
struct ShellCommand {
  std::vector<std::string> words;

  // A word that is an operand: one that begins with a dash must not be read as an option.
  void Operand(const std::string& path);
  // --name and its value.
  void Option(const std::string& name, const std::string& value);
  void Switch(const std::string& name) { words.push_back("--" + name); }

  // All of it in one line.
  std::string Line() const;
  // The same in lines of at most `columns` columns, where the words allow it: those after the first begin
  // with four blanks, each but the last ends with a backslash. An option stays with its value.
  std::string Lines(size_t columns) const;
};

}  // namespace mica
