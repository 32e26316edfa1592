#include "base/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "base/units.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

using namespace std::string_view_literals;

struct Magic {
  size_t offset;
  std::string_view bytes;
  std::string_view name;
  std::string_view advice;
  bool is_word = false;  // letters with which a text may begin: control characters must follow
};

constexpr std::string_view kUnpack = "unpack it first", kAsLines = "write its texts as lines of JSON first",
                           kOriginal = "give the checkpoint in the Hugging Face layout that it was made of",
                           kExtract = "extract its text first";

// Signatures by which formats are told apart (as file(1) does), the longer ones first where one begins
// another.
constexpr Magic kMagics[] = {
    {0, "\x1f\x8b"sv, "gzip data", "decompress it first (gzip -d)"},
    {0, "\x28\xb5\x2f\xfd"sv, "Zstandard data", "decompress it first (zstd -d)"},
    {0, "\xfd\x37zXZ\0"sv, "xz data", "decompress it first (xz -d)"},
    {0, "BZh"sv, "bzip2 data", "decompress it first (bzip2 -d)", true},
    {0, "\x04\x22\x4d\x18"sv, "LZ4 data", "decompress it first (lz4 -d)"},
    {0, "LZIP"sv, "lzip data", "decompress it first (lzip -d)", true},
    {0, "\x5d\0\0"sv, "LZMA data", "decompress it first (xz -d)"},
    {0, "\x1f\x9d"sv, "data of compress(1)", "decompress it first (gzip -d)"},
    {0, "PK\3\4"sv, "a zip archive", kUnpack},
    {0, "PK\5\6"sv, "an empty zip archive", "fetch it again"},
    {0, "PK\7\x08"sv, "a zip archive", kUnpack},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive", kUnpack},
    {0, "Rar!\x1a\7"sv, "a RAR archive", kUnpack},
    {257, "ustar"sv, "a tar archive", kUnpack, true},
    {0, "PAR1"sv, "a Parquet file", kAsLines, true},
    {0, "ARROW1"sv, "an Arrow file", kAsLines, true},
    {0, "FEA1"sv, "a Feather file", kAsLines, true},
    {0, "ORC"sv, "an ORC file", kAsLines, true},
    {0, "Obj\1"sv, "an Avro file", kAsLines},
    {0, "SQLite format 3\0"sv, "an SQLite database", kAsLines},
    {0, "%PDF-"sv, "a PDF document", "extract its text first (pdftotext)"},
    {0, "{\\rtf"sv, "an RTF document", kExtract},
    {0, "%!PS"sv, "a PostScript document", kExtract},
    {0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv, "an old Office document", kExtract},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file", kOriginal},
    {0, "\x93NUMPY"sv, "a NumPy array", kOriginal},
    {0, "GGUF"sv, "a GGUF file", kOriginal, true},
    {0, "lmgg"sv, "a GGML file", kOriginal, true},
    {0, "fmgg"sv, "a GGML file", kOriginal, true},
    {0, "tjgg"sv, "a GGML file", kOriginal, true},
    {0,
     "\x7f"
     "ELF"sv,
     "a program", "check the path"},
    {0, "\x89PNG"sv, "a picture", "check the path"},
    {0, "\xff\xd8\xff"sv, "a picture", "check the path"},
};

// Text behind white space and a byte order mark.
std::string_view SkipSpace(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

bool StartsWithWord(std::string_view text, std::string_view word) {
  return text.size() >= word.size() && std::equal(word.begin(), word.end(), text.begin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b);
         });
}

std::optional<FileKind> RecogniseLfsPointer(std::string_view begin) {
  if (!begin.starts_with("version https://git-lfs.github.com/spec/") &&
      !begin.starts_with("version https://hawser.github.com/spec/")) {
    return std::nullopt;
  }
  std::string name = "a Git LFS pointer";
  if (const size_t size = begin.find("\nsize "); size != std::string_view::npos) {
    uint64_t bytes = 0;
    const char* const digits = begin.data() + size + 6;
    if (std::from_chars(digits, begin.data() + begin.size(), bytes).ec == std::errc())
      name +=
          fmt::format(" (the file of {} itself was not fetched)", FormatBytes(static_cast<double>(bytes)));
  }
  return FileKind{name, "run 'git lfs pull' in its directory"};
}

std::optional<FileKind> RecogniseMarkup(std::string_view begin) {
  const std::string_view text = SkipSpace(begin);
  const bool html = StartsWithWord(text, "<!doctype html") || StartsWithWord(text, "<html") ||
                    StartsWithWord(text, "<head") || StartsWithWord(text, "<body");
  if (!html && !StartsWithWord(text, "<?xml")) return std::nullopt;
  return FileKind{html ? "an HTML page" : "an XML document",
                  "it may be the error page of a server: look into it and fetch the file again", true, true};
}

// Characters of ordinary text: Latin, Greek, Cyrillic, Hebrew and Arabic, punctuation, Japanese, Chinese,
// Korean.
bool IsOrdinary(uint32_t code) {
  return code == '\t' || code == '\n' || code == '\r' || (code >= 0x20 && code <= 0x7E) ||
         (code >= 0xA0 && code <= 0x6FF) || (code >= 0x1E00 && code <= 0x206F) ||
         (code >= 0x3000 && code <= 0x30FF) || (code >= 0x4E00 && code <= 0x9FFF) ||
         (code >= 0xAC00 && code <= 0xD7A3) || (code >= 0xD800 && code <= 0xDFFF) ||
         (code >= 0xFF00 && code <= 0xFFEF) || code == 0xFEFF;
}

struct WideEncoding {
  const char* name;  // as iconv spells it
  size_t bytes;      // of a unit
  bool little;
  std::string_view mark;
};
// UTF-32LE's byte order mark begins as UTF-16LE's does.
constexpr WideEncoding kWideEncodings[] = {{"UTF-32LE", 4, true, "\xff\xfe\0\0"sv},
                                           {"UTF-32BE", 4, false, "\0\0\xfe\xff"sv},
                                           {"UTF-16LE", 2, true, "\xff\xfe"sv},
                                           {"UTF-16BE", 2, false, "\xfe\xff"sv}};

// Of the units of `begin` in an encoding: those that are ordinary characters, and those of ASCII among them.
struct Units {
  size_t all = 0, ordinary = 0, ascii = 0;
};
Units CountUnits(std::string_view begin, const WideEncoding& encoding) {
  Units units;
  for (size_t at = 0; at + encoding.bytes <= begin.size(); at += encoding.bytes, ++units.all) {
    uint32_t code = 0;
    for (size_t i = 0; i < encoding.bytes; ++i) {
      const size_t from = encoding.little ? encoding.bytes - 1 - i : i;
      code = code << 8 | static_cast<uint8_t>(begin[at + from]);
    }
    units.ordinary += IsOrdinary(code) ? 1 : 0;
    units.ascii += IsOrdinary(code) && code < 0x80 ? 1 : 0;
  }
  return units;
}

// UTF-16 and UTF-32, whose zero bytes no other text has: with a byte order mark, or where units of that width
// are ordinary characters nearly all.
std::optional<FileKind> RecogniseWide(std::string_view begin) {
  constexpr double kNearlyAll = 0.95;
  const auto kind = [](std::string_view encoding, std::string_view as) {
    return FileKind{fmt::format("{} text", encoding),
                    fmt::format("convert it with iconv -f {} -t UTF-8", as)};
  };
  for (const WideEncoding& encoding : kWideEncodings) {
    const std::string_view name = encoding.name;  // without its end, iconv takes the mark away
    if (begin.starts_with(encoding.mark)) return kind(name, name.substr(0, name.size() - 2));
  }
  // A blank, line end, digit or Latin letter in each 64 units at least.
  const size_t zeros = static_cast<size_t>(std::count(begin.begin(), begin.end(), '\0'));
  if (begin.size() < 4 || zeros * 128 < begin.size()) return std::nullopt;
  // With its bytes in the other order, Latin text reads as Chinese: of two readings, that with more of ASCII.
  const WideEncoding* likely = nullptr;
  size_t most = 0;
  for (const WideEncoding& encoding : kWideEncodings) {
    const Units units = CountUnits(begin, encoding);
    if (static_cast<double>(units.ordinary) < kNearlyAll * static_cast<double>(units.all)) continue;
    if (units.all == 0 || (likely != nullptr && units.ascii <= most)) continue;
    most = units.ascii;
    likely = &encoding;
  }
  return likely == nullptr ? std::nullopt : std::optional(kind(likely->name, likely->name));
}

// LLaMA 3's tokenizer.model: a line "BASE64 RANK" for each piece, ranks from 0.
bool IsTiktoken(std::string_view begin) {
  for (int rank = 0; rank < 3; ++rank) {
    const size_t end = begin.find('\n');
    if (end == std::string_view::npos) return false;
    const std::string_view line = begin.substr(0, end);
    const size_t blank = line.find(' ');
    const auto is_base64 = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
             c == '/' || c == '=';
    };
    if (blank == std::string_view::npos || blank == 0 || blank % 4 != 0 ||
        !std::all_of(line.begin(), line.begin() + static_cast<ptrdiff_t>(blank), is_base64) ||
        line.substr(blank + 1) != std::to_string(rank)) {
      return false;
    }
    begin.remove_prefix(end + 1);
  }
  return true;
}

bool IsSafetensors(std::string_view begin) {
  uint64_t header = 0;
  if (begin.size() <= sizeof(header) || begin[sizeof(header)] != '{') return false;
  std::memcpy(&header, begin.data(), sizeof(header));
  return header >= 2 && header <= 100'000'000;
}

// A SentencePiece model begins with the message of its first piece: its text, then its score.
bool IsTokenizerModel(std::string_view begin) {
  return begin.size() > 4 && begin[0] == '\n' && begin[2] == '\n' && begin[3] > 0 &&
         begin[3] + 2 <= begin[1] &&
         begin.substr(4).substr(0, static_cast<size_t>(begin[3]) + 1).ends_with('\x15') &&
         begin.size() > 4 + static_cast<size_t>(begin[3]);
}

// The stream of Arrow that data sets are kept in: a message of some hundred bytes, its length in front.
bool IsArrowStream(std::string_view begin) {
  uint32_t length = 0;
  if (begin.size() < 12 || !begin.starts_with("\xff\xff\xff\xff")) return false;
  std::memcpy(&length, begin.data() + 4, sizeof(length));
  return length > 0 && length < (1u << 24) && length % 8 == 0;
}

}  // namespace

std::optional<FileKind> RecogniseFile(std::string_view begin) {
  begin = begin.substr(0, kRecognisedBytes);
  if (begin.empty()) return FileKind{"empty", "fetch it again"};
  if (std::all_of(begin.begin(), begin.end(), [](char c) { return c == '\0'; }))
    return FileKind{"filled with zero bytes, as a download is that was not finished", "fetch it again"};
  if (std::optional<FileKind> pointer = RecogniseLfsPointer(begin)) return pointer;
  if (IsSafetensors(begin))
    return FileKind{std::string(kSafetensorsFile), "its name should end in .safetensors"};
  constexpr size_t kFewBytes = 64;
  const bool binary = begin.size() < kFewBytes ||
                      std::any_of(begin.begin(), begin.end(), [](char c) { return c >= 0 && c < 9; });
  for (const Magic& magic : kMagics) {
    if (begin.size() > magic.offset && begin.substr(magic.offset).starts_with(magic.bytes) &&
        (binary || !magic.is_word))
      return FileKind{std::string(magic.name), std::string(magic.advice)};
  }
  // Sixteen signatures of skippable frames.
  if (begin.size() >= 8 && (static_cast<uint8_t>(begin[0]) & 0xF0) == 0x50 &&
      begin.substr(1, 3) == "\x2a\x4d\x18")
    return FileKind{"Zstandard data", "decompress it first (zstd -d)"};
  if (begin.size() > 2 && begin[0] == '\x80' && begin[1] >= 2 && begin[1] <= 5)
    return FileKind{"a bare pickle, as PyTorch before 1.6 wrote",
                    "load it once with a later PyTorch and save it again"};
  if (IsArrowStream(begin)) return FileKind{"an Arrow stream", std::string(kAsLines)};
  if (std::optional<FileKind> markup = RecogniseMarkup(begin)) return markup;
  if (std::optional<FileKind> wide = RecogniseWide(begin)) return wide;
  if (IsTokenizerModel(begin)) return FileKind{std::string(kTokenizerModel), "check the path"};
  if (IsTiktoken(begin))
    return FileKind{"a tiktoken vocabulary, the byte-level BPE of LLaMA 3",
                    "such tokenizers are not supported, SentencePiece ones are", true};
  const std::string_view text = SkipSpace(begin);
  if (text.starts_with("{") || text.starts_with("["))
    return FileKind{std::string(kJsonFile), "look into it, and check the path", true};
  return std::nullopt;
}

void RefuseOtherKind(std::string_view begin, const std::string& file, std::string_view expected) {
  const std::optional<FileKind> kind = RecogniseFile(begin);
  if (!kind || kind->name == expected) return;
  Fail("{}: is {}, expected {}; {}", file, kind->name, expected, kind->advice);
}

std::string CannotOpen(const fs::path& path, int code) {
  std::error_code ignored;
  if (fs::is_symlink(path, ignored) && !fs::exists(path, ignored)) {
    return fmt::format("{}: is a link to {}, which does not exist; fetch that file, or mend the link",
                       path.string(), fs::read_symlink(path, ignored).string());
  }
  return fmt::format("{}: cannot be opened ({}); check the path", path.string(), std::strerror(code));
}

bool IsPresent(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) || fs::is_symlink(path, ignored);
}

}  // namespace mica
