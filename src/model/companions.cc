#include "model/companions.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "io/text/tokenizer.h"
#include "model/gguf/vocabulary.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kNames[] = {"tokenizer.model",
                                       kVocabularyFile,
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "chat_template.json",
                                       "generation_config.json",
                                       "processor_config.json",
                                       "preprocessor_config.json",
                                       "LICENSE",
                                       "LICENSE.txt",
                                       "LICENSE.md",
                                       "NOTICE",
                                       "NOTICE.txt",
                                       "USE_POLICY.md"};
// Chat templates, code that config.json or tokenizer_config.json names under "auto_map".
constexpr std::string_view kEndings[] = {".jinja", ".py", ".tiktoken"};
// Of further chat templates.
constexpr const char* kTemplates = "additional_chat_templates";

}  // namespace

bool IsCompanion(const std::string& name) {
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) ||
         std::any_of(std::begin(kEndings), std::end(kEndings),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

std::vector<fs::path> Companions(const fs::path& checkpoint) {
  std::vector<fs::path> found;
  const auto add = [&](const fs::path& below) {
    std::error_code code;
    if (!fs::is_directory(checkpoint / below, code)) return;
    for (const fs::directory_entry& entry : fs::directory_iterator(checkpoint / below)) {
      const fs::path name = entry.path().filename();
      if (entry.is_regular_file() && IsCompanion(name.string())) found.push_back(below / name);
    }
  };
  add("");
  add(kTemplates);
  std::sort(found.begin(), found.end());
  return found;
}

void CopyCompanions(const Checkpoint& checkpoint, const fs::path& to) {
  const fs::path& from = checkpoint.directory();
  for (const fs::path& name : Companions(from)) {
    if (name.has_parent_path()) MakeDirectories(to / name.parent_path());
    WriteFileAtomically(to / name, ReadFile(from / name));
  }
  if (checkpoint.gguf() != nullptr && !Tokenizer::IsIn(from))
    WriteVocabularyFile(*checkpoint.gguf(), to / kVocabularyFile);
}

}  // namespace mica
