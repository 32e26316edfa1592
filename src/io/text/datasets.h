// Evaluation and calibration texts: how a file of each kind becomes one text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace mica {

// wikitext2: lines are dataset rows (the line with its newline; a blank line is the empty row), joined by
// "\n\n". ptb: lines stripped, joined by " ". c4: the "text" of each line of JSON, joined by " ". text: the
// file as it is. Every kind may be plain, .gz or .zst.
enum class DataKind { kWikitext2, kPtb, kC4, kText };

struct DataSpec {
  std::string
      name;  // as given before "=", also the key in results: "wikitext2", "ptb", "c4", "text" or any name
  DataKind kind = DataKind::kText;
  std::filesystem::path path;
  double weight = 1.0;  // calibration only
};

// Parses "KIND=FILE", "NAME:KIND=FILE" and, when `weighted`, an optional ":WEIGHT" behind FILE. Throws Error
// (usage).
DataSpec ParseDataSpec(const std::string& argument, bool weighted = false);
const char* DataKindName(DataKind kind);

struct LoadedText {
  std::string text;         // UTF-8
  std::string fingerprint;  // SHA-256 of the file's bytes as stored
  uint64_t file_bytes = 0;
};

// Reads and joins. Throws Error for a missing or empty file, bad gzip/zstd/JSON (with the line number),
// invalid UTF-8 (with the byte offset), text beyond 8 GiB once decompressed, and for what is no text (UTF-16,
// an archive, a Git LFS pointer), which it names.
LoadedText LoadText(const DataSpec& spec);
// The same for a file's bytes that are in memory; `where` is its name in errors.
std::string TextOf(std::span<const std::byte> bytes, DataKind kind, const std::string& where);

}  // namespace mica
