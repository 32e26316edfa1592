// What a file is by its first bytes: a reader whose file is not what it expects names it for what it is, and
// says what to do with it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace mica {

// A file is recognised by that many of its bytes; fewer only when it has no more.
inline constexpr size_t kRecognisedBytes = 4096;

inline constexpr std::string_view kJsonFile = "a JSON file";
inline constexpr std::string_view kSafetensorsFile = "a safetensors file";
inline constexpr std::string_view kTorchFile = "a PyTorch checkpoint";
inline constexpr std::string_view kTokenizerModel = "a SentencePiece model";

struct FileKind {
  std::string name;        // with its article, "a zip archive"; or one of the names above
  std::string advice;      // "unpack it first"
  bool is_text = false;    // readable as it is (JSON, HTML): a reader of texts may take it all the same
  bool is_markup = false;  // HTML or XML: as a rule the error page of a server, saved in place of the file
};

// What a file that begins with `begin` is, or nothing when it could be anything. An empty file, zero bytes, a
// Git LFS pointer and UTF-16 are kinds as well.
std::optional<FileKind> RecogniseFile(std::string_view begin);

// For a reader that found that its file is not `expected` ("a safetensors file"): throws Error naming what it
// is and what to do, or returns when that is not known or is `expected` itself.
void RefuseOtherKind(std::string_view begin, const std::string& file, std::string_view expected);

// The whole line for a file that cannot be opened because of `code` (errno): names the target of a link that
// leads nowhere.
std::string CannotOpen(const std::filesystem::path& path, int code);

// Whether something has that name, be it a link that leads nowhere: opening it says so.
bool IsPresent(const std::filesystem::path& path);

}  // namespace mica
