#include "base/output.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "base/file.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr size_t kRoomForResult = 64 << 10;  // bytes; results and reports are a few KB to a few hundred KB

// Whether `path` is a device or pipe, which must be written in place: renaming a file over it would replace
// it.
bool IsStream(const fs::path& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (code || !fs::exists(status) || fs::is_regular_file(status)) return false;
  if (fs::is_directory(status)) Fail("{}: is a directory; give the name of a file to write", path.string());
  return true;
}

}  // namespace

void CheckOutput(const fs::path& path) {
  if (IsStream(path)) return;
  if (!path.has_filename()) Fail("{}: names a directory; give the name of a file to write", path.string());
  std::error_code code;
  if (fs::exists(path, code) && ::access(path.c_str(), W_OK) != 0) {
    Fail("{}: cannot be written ({}); choose another file", path.string(), std::strerror(errno));
  }
  AtomicFile probe(path);  // removed unfinished: the file that was there stays as it was
  probe.Write(std::string(kRoomForResult, ' '));
}

size_t TerminalColumns(size_t otherwise) {
  constexpr size_t kLeast = 20;
  winsize size{};
  if (::isatty(STDOUT_FILENO) != 1 || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
    return otherwise;
  return std::max<size_t>(kLeast, size.ws_col);
}

void WriteOutput(const fs::path& path, std::string_view content) {
  if (!IsStream(path)) return WriteFileAtomically(path, content);
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) Fail("{}: cannot be written ({})", path.string(), std::strerror(errno));
  int failed = 0;
  while (!content.empty() && failed == 0) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written > 0)
      content.remove_prefix(static_cast<size_t>(written));
    else if (errno != EINTR)
      failed = errno;
  }
  if (::close(descriptor) != 0 && failed == 0) failed = errno;
  if (failed != 0) Fail("{}: writing failed ({})", path.string(), std::strerror(failed));
}

void WriteStdout(std::string_view content) {
  const size_t written = std::fwrite(content.data(), 1, content.size(), stdout);
  if (written != content.size() || std::fflush(stdout) != 0)
    Fail("stdout: writing failed ({})", std::strerror(errno));
}

std::string JsonText(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

size_t DisplayWidth(std::string_view text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t code = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    for (size_t k = 1; k < length && i + k < text.size(); ++k)
      code = code << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3Fu);
    i += length;
    // East Asian Width W and F (Unicode TR 11), as far as reports use them: CJK radicals to Yi, Hangul,
    // compatibility and full-width forms.
    const bool wide = (code >= 0x1100 && code <= 0x115F) || (code >= 0x2E80 && code <= 0xA4CF) ||
                      (code >= 0xAC00 && code <= 0xD7A3) || (code >= 0xF900 && code <= 0xFAFF) ||
                      (code >= 0xFE30 && code <= 0xFE6F) || (code >= 0xFF00 && code <= 0xFF60) ||
                      (code >= 0xFFE0 && code <= 0xFFE6) || (code >= 0x20000 && code <= 0x3FFFD);
    width += wide ? 2 : 1;
  }
  return width;
}

std::string Padded(std::string_view text, size_t width, bool right_aligned) {
  const size_t own = DisplayWidth(text);
  const std::string blanks(own < width ? width - own : 0, ' ');
  return right_aligned ? blanks + std::string(text) : std::string(text) + blanks;
}

std::string AlignedTable(const std::vector<std::vector<std::string>>& rows, size_t text_columns) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], DisplayWidth(row[c]));
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < rows[r].size(); ++c)
      line += "  " + Padded(rows[r][c], widths[c], c >= text_columns);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
    if (r > 0) continue;
    size_t total = 0;
    for (const size_t width : widths) total += width + 2;
    text += "  " + std::string(total - 2, '-') + "\n";
  }
  return text;
}

}  // namespace mica
