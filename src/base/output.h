// Where a result goes: a file that appears whole, or a device such as /dev/stdout; and text laid out in
// columns.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace mica {

// Throws Error unless a result can be written to `path`: an ordinary file (its directory exists, is writable
// and has room for a result) or a device or pipe. Called before long work, it leaves nothing behind.
void CheckOutput(const std::filesystem::path& path);

// Writes `content`: atomically when `path` is or becomes an ordinary file, straight into a device or pipe
// otherwise. Throws Error with the system's reason.
void WriteOutput(const std::filesystem::path& path, std::string_view content);

// Writes to stdout and throws Error when that fails (a full disk behind a redirection).
void WriteStdout(std::string_view content);
// JSON as result files hold it: indented by two blanks, one newline at the end; bytes that are not UTF-8 (of
// a path) are replaced.
std::string JsonText(const Json& json);

// Columns of the terminal that stdout is, at least 20; `otherwise` where it is none or does not say.
size_t TerminalColumns(size_t otherwise);
// Terminal columns that UTF-8 text takes: 2 for East Asian wide characters, 1 for others.
size_t DisplayWidth(std::string_view text);
// `text` filled with blanks to `width` columns, on the left when `right_aligned`.
std::string Padded(std::string_view text, size_t width, bool right_aligned);

// Rows of cells as aligned lines, two blanks between columns, each line indented by two blanks; the first row
// is the heading and is followed by a rule. The first `text_columns` columns are left-aligned, the others
// right-aligned. Rows may be shorter than the heading.
std::string AlignedTable(const std::vector<std::vector<std::string>>& rows, size_t text_columns = 1);

}  // namespace mica
