// Evaluation and calibration texts: how a file of each kind becomes one text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mica {

// wikitext2: lines are dataset rows (the line with its newline; a blank line is the empty row), joined by
// "\n\n". ptb: lines stripped, joined by " ". c4: the "text" of each line of JSON, joined by " ". text: the
// file as it is. Every kind may be plain, .gz or .zst, and a byte order mark in front is left out. built-in:
// no file, the program's own text to calibrate on (built_in_text.h).
enum class DataKind { kWikitext2, kPtb, kC4, kText, kBuiltIn };

struct DataSpec {
  std::string
      name;  // as given before "=", also the key in results: "wikitext2", "ptb", "c4", "text" or any name
  DataKind kind = DataKind::kText;
  std::filesystem::path path;
  double weight = 1.0;  // calibration only
};

// Throws Error unless a data set may have this name (base/text.h); `where` says which set it is.
void CheckDataName(const std::string& name, const std::string& where);

// Parses "KIND=FILE", "NAME:KIND=FILE" and, when `weighted`, "built-in" and an optional ":WEIGHT" behind
// either; where a file has the whole as its name ("d/t:2"), that is meant. Throws Error (usage).
DataSpec ParseDataSpec(const std::string& argument, bool weighted = false);
// The same from its parts; without a name it has that of its kind. Not for the built-in text.
DataSpec MakeDataSpec(const std::string& kind, const std::string& path,
                      const std::optional<std::string>& name = std::nullopt);
const char* DataKindName(DataKind kind);
// The built-in text, whose path is its name.
inline constexpr const char* kBuiltInText = "built-in";
DataSpec BuiltInText();

struct LoadedText {
  std::string text;         // UTF-8
  std::string fingerprint;  // SHA-256 of `text`: what two files that make the same text have in common
  std::string content_fingerprint;  // SHA-256 of the file once decompressed, whatever its kind makes of it
  uint64_t file_bytes = 0;          // as stored
  uint64_t lines = 0;               // of the file once decompressed, as wc counts them
};

// Reads and joins. Throws Error for a missing or empty file, bad gzip/zstd/JSON (with the line number),
// invalid UTF-8 (with the byte offset), text beyond 8 GiB once decompressed, and for what is no text (UTF-16,
// an archive, a Git LFS pointer), which it names.
LoadedText LoadText(const DataSpec& spec);
// The same for a file's bytes that are in memory; `where` is its name in errors.
// `loaded`, unless null, gets what LoadedText says of the content: its fingerprint and lines.
std::string TextOf(std::span<const std::byte> bytes, DataKind kind, const std::string& where,
                   LoadedText* loaded = nullptr);

}  // namespace mica
