#include "base/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/terminal.h"
#include "base/text.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr size_t kRoomForResult = 64 << 10;  // bytes; results and reports are a few KB to a few hundred KB

// The descriptor of this process that a path stands for: /dev/stdout, /dev/fd/3, a link to one.
std::optional<int> DescriptorNamed(fs::path path) {
  constexpr int kMostLinks = 40;
  for (int links = 0; links < kMostLinks; ++links) {
    const std::string name = path.filename().string(), folder = path.parent_path().string();
    const bool number = !name.empty() && name.size() < 6 &&
                        std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number && (folder == "/dev/fd" || folder == "/proc/self/fd")) return std::atoi(name.c_str());
    std::error_code code;
    const fs::path next = fs::read_symlink(path, code);
    if (code) return std::nullopt;
    path = path.parent_path() / next;
  }
  return std::nullopt;
}

// Whether `path` is a device, a pipe or a descriptor, which must be written in place: renaming a file over it
// would replace it.
bool IsStream(const fs::path& path) {
  if (DescriptorNamed(path)) return true;
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (code || !fs::exists(status) || fs::is_regular_file(status)) return false;
  if (fs::is_directory(status)) Fail("{}: is a directory; give the name of a file to write", path.string());
  if (fs::is_socket(status)) Fail("{}: is a socket; give the name of a file to write", path.string());
  return true;
}

// The system's reason why not all of it could be written, 0 when it was.
int WriteAll(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written > 0)
      content.remove_prefix(static_cast<size_t>(written));
    else if (errno != EINTR)
      return errno;
  }
  return 0;
}

[[noreturn]] void FailStdout() { Fail("stdout: writing failed ({})", std::strerror(errno)); }

void WriteRaw(std::string_view content) {
  WipeOpenLine();
  const size_t written = std::fwrite(content.data(), 1, content.size(), stdout);
  if (written != content.size() || std::fflush(stdout) != 0) FailStdout();
}

// Two results in one file would make neither.
void RefuseFileOfStdout(const fs::path& path) {
  struct stat shown, status;
  if (::fstat(STDOUT_FILENO, &shown) != 0 || ::stat(path.c_str(), &status) != 0) return;
  if (shown.st_dev == status.st_dev && shown.st_ino == status.st_ino)
    Fail("{}: is the file that stdout goes to; give another one, or /dev/stdout to have both there",
         path.string());
}

// A path as others may name the same place.
struct Place {
  fs::path named;  // as it was given
  fs::path path;   // absolute, without links as far as it exists
  bool exists = false;
  bool directory = false;
  dev_t device = 0;
  ino_t inode = 0;
};

Place PlaceOf(const fs::path& named) {
  Place place;
  place.named = named;
  struct stat status;
  place.exists = ::stat(named.c_str(), &status) == 0;
  if (place.exists) {
    place.directory = S_ISDIR(status.st_mode);
    place.device = status.st_dev;
    place.inode = status.st_ino;
  }
  std::error_code code;
  place.path = fs::weakly_canonical(LinkTarget(named), code);
  if (code) place.path = fs::absolute(named, code).lexically_normal();
  if (!place.path.has_filename() && place.path.has_relative_path()) place.path = place.path.parent_path();
  return place;
}

bool Same(const Place& a, const Place& b) {
  if (a.exists && b.exists) return a.device == b.device && a.inode == b.inode;
  return a.path == b.path;
}

bool Inside(const Place& place, const Place& directory) {
  const auto [mismatch, end] =
      std::mismatch(directory.path.begin(), directory.path.end(), place.path.begin(), place.path.end());
  return mismatch == directory.path.end() && end != place.path.end();
}

// Whether a file of the directory is `place` by another name: links to a store of files, hard links.
bool Holds(const Place& directory, const Place& place) {
  if (!place.exists) return false;
  std::error_code code;
  for (fs::directory_iterator entry(directory.path, code), end; !code && entry != end;
       entry.increment(code)) {
    struct stat status;
    if (::stat(entry->path().c_str(), &status) == 0 && status.st_dev == place.device &&
        status.st_ino == place.inode)
      return true;
  }
  return false;
}

void CheckOutputAgainst(const Place& output, const Place& input, const CommandFiles& files) {
  if (!input.directory) {
    if (Same(output, input))
      Fail("{}: is also an input of this command{}; give another file to write", output.named.string(),
           output.named == input.named ? "" : " (" + input.named.string() + ")");
    return;
  }
  if (!Inside(output, input) && !Holds(input, output)) return;
  if (files.harmless && files.harmless(output.named)) return;
  Fail("{}: {} the directory {}, which this command reads; give another file to write", output.named.string(),
       output.exists ? "is a file of" : "lies in", input.named.string());
}

}  // namespace

void CheckFiles(const CommandFiles& files) {
  std::vector<Place> inputs, outputs, directories;
  for (const fs::path& path : files.inputs) {
    if (!path.empty()) inputs.push_back(PlaceOf(path));
  }
  for (const fs::path& path : files.outputs) {
    if (!path.empty() && !IsStream(path)) outputs.push_back(PlaceOf(path));
  }
  for (const fs::path& path : files.directories) directories.push_back(PlaceOf(path));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::string name = outputs[i].named.string();
    for (const Place& input : inputs) CheckOutputAgainst(outputs[i], input, files);
    for (size_t other = 0; other < i; ++other) {
      if (Same(outputs[i], outputs[other])) Fail("{}: is given for two outputs; give two files", name);
    }
    for (const Place& directory : directories) {
      if (Same(outputs[i], directory) || Inside(outputs[i], directory))
        Fail("{}: lies in the directory {}, which is to hold nothing but its own files; give another file",
             name, directory.named.string());
    }
  }
  for (const Place& directory : directories) {
    for (const Place& input : inputs) {
      if (!Same(directory, input) && !(input.directory && Inside(directory, input))) continue;
      Fail("{}: {} {}, which this command reads; give another directory to write", directory.named.string(),
           Same(directory, input) ? "is the same as" : "lies in the directory", input.named.string());
    }
  }
}

void CheckOutput(const fs::path& path) {
  if (IsStream(path)) return;
  RefuseFileOfStdout(path);
  if (!path.has_filename()) Fail("{}: names a directory; give the name of a file to write", path.string());
  AtomicFile probe(path);  // removed unfinished: the file that was there stays as it was
  probe.Write(std::string(kRoomForResult, ' '));
}

void WriteOutput(const fs::path& path, std::string_view content) {
  if (!IsStream(path)) {
    RefuseFileOfStdout(path);
    return WriteFileAtomically(path, content);
  }
  int failed = 0;
  if (const std::optional<int> own = DescriptorNamed(path)) {
    failed = WriteAll(*own, content);
  } else {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) Fail("{}: cannot be written ({})", path.string(), std::strerror(errno));
    failed = WriteAll(descriptor, content);
    if (::close(descriptor) != 0 && failed == 0) failed = errno;
  }
  if (failed != 0) Fail("{}: writing failed ({})", path.string(), std::strerror(failed));
}

void WriteStdout(std::string_view content) { WriteRaw(PrintableLines(content)); }

void StreamStdout(std::string_view piece) {
  if (::isatty(STDOUT_FILENO) != 0) return WriteRaw(PrintableLines(piece));
  WriteRaw(piece);
}

void ClearScreen() { WriteRaw("\033[H\033[J"); }

void CloseStdout() {
  if (std::ferror(stdout) != 0 || std::fclose(stdout) != 0) FailStdout();
}

void WriteResults(const std::vector<FileResult>& files, std::string_view shown) {
  std::exception_ptr failure;
  const auto attempt = [&](const auto& write) {
    try {
      write();
    } catch (const Error&) {
      if (!failure) failure = std::current_exception();
    }
  };
  for (const FileResult& file : files) attempt([&] { WriteOutput(file.path, file.content); });
  attempt([&] { WriteStdout(shown); });
  if (failure) std::rethrow_exception(failure);
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

std::string Shortened(std::string_view text, size_t columns) {
  size_t end = 0, used = 0;
  while (end < text.size()) {
    size_t next = end + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0) == 0x80) ++next;
    used += DisplayWidth(text.substr(end, next - end));
    if (used > columns) break;
    end = next;
  }
  return std::string(text.substr(0, end));
}

std::string Padded(std::string_view text, size_t width, bool right_aligned) {
  const size_t own = DisplayWidth(text);
  const std::string blanks(own < width ? width - own : 0, ' ');
  return right_aligned ? blanks + std::string(text) : std::string(text) + blanks;
}

std::string AlignedTable(const std::vector<std::vector<std::string>>& given, size_t text_columns) {
  std::vector<std::vector<std::string>> rows = given;
  for (auto& row : rows) {
    for (std::string& cell : row) cell = Printable(cell, std::string_view::npos);
  }
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
