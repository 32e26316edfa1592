// What goes with a model's weights wherever they go.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "io/container/checkpoint.h"

namespace mica {

// Whether a file of this name in a checkpoint directory belongs to the model whatever form its weights have:
// tokenizer, chat templates, generation settings, code that its config.json names, licence. Neither weights
// nor config.json.
bool IsCompanion(const std::string& name);
// The companions in a checkpoint directory, sorted, relative to it ("tokenizer.model",
// "additional_chat_templates/tool_use.jinja").
std::vector<std::filesystem::path> Companions(const std::filesystem::path& checkpoint);
// Copies those beside a checkpoint, each atomically, over those in `to`. Of a GGUF model without a tokenizer
// beside it its vocabulary is kept as a file (kVocabularyFile).
void CopyCompanions(const Checkpoint& checkpoint, const std::filesystem::path& to);

}  // namespace mica
