// The text of a chat template as tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "generate/chat_template.h"
#include "io/text/tokenizer.h"

namespace mica {

// Ids of what a template has rendered. Special tokens are found in what the template wrote and not in contents: a
// conversation with such characters in a message is cut at its contents and encoded part by part. BOS is the
// template's own.
std::vector<int32_t> ChatTokens(const std::vector<ChatSegment>& segments, const Tokenizer& tokenizer);

}  // namespace mica
