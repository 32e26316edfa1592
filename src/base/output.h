// Where a result goes: a file that appears whole, or a device such as /dev/stdout; and text laid out in
// columns.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// Throws Error unless a result can be written to `path`: an ordinary file (its directory exists, is writable
// and has room for a result) or a device or pipe. Called before long work, it leaves nothing behind.
void CheckOutput(const std::filesystem::path& path);

// Writes `content`: atomically when `path` is or becomes an ordinary file, straight into a device, a pipe or
// one of this process's descriptors (/dev/stdout) otherwise. Throws Error with the system's reason.
void WriteOutput(const std::filesystem::path& path, std::string_view content);

// What a command reads and what it will write.
struct CommandFiles {
  std::vector<std::filesystem::path> inputs = {};   // files, and directories any file of which may be read
  std::vector<std::filesystem::path> outputs = {};  // files; empty paths mean none
  std::vector<std::filesystem::path> directories = {};  // that it fills
  // Whether an output may lie in an input directory all the same; none may where this is empty.
  std::function<bool(const std::filesystem::path& output)> harmless = {};
};

// Throws Error, before anything is done, when an output is an input, lies in an input directory or in a
// directory that is filled, or is another output; and when a directory to fill is an input directory or lies
// in one. Links are followed, and names of one file (hard links) are told by device and inode.
void CheckFiles(const CommandFiles& files);

// Writes to stdout and throws Error when that fails (a full disk behind a redirection, a reader that is
// gone). The lines are made printable (base/text.h).
void WriteStdout(std::string_view content);
// Writes a piece of a text that goes on; it is there at once. On a terminal it is made printable, elsewhere it
// is written as it is.
void StreamStdout(std::string_view piece);
// Clears the terminal behind stdout.
void ClearScreen();
// Throws Error when something that was written to stdout did not arrive there; nothing may be written after.
void CloseStdout();

// A result for a file.
struct FileResult {
  std::filesystem::path path;
  std::string content;
};
// What a command has found, to its files and then to stdout. A file that fails does not keep the others and
// stdout from getting theirs; the first failure is thrown.
void WriteResults(const std::vector<FileResult>& files, std::string_view shown);

// Terminal columns that UTF-8 text takes: 2 for East Asian wide characters, 1 for others.
size_t DisplayWidth(std::string_view text);
// As much of `text` as fits into `columns`.
std::string Shortened(std::string_view text, size_t columns);
// `text` filled with blanks to `width` columns, on the left when `right_aligned`.
std::string Padded(std::string_view text, size_t width, bool right_aligned);

// Rows of cells as aligned lines, two blanks between columns, each line indented by two blanks; the first row
// is the heading and is followed by a rule. The first `text_columns` columns are left-aligned, the others
// right-aligned. Rows may be shorter than the heading. Cells are made printable.
std::string AlignedTable(const std::vector<std::vector<std::string>>& rows, size_t text_columns = 1);

}  // namespace mica
