// What `mica generate` and `mica chat` make of GenerationOptionTable.
#pragma once

#include "base/json.h"
#include "generate/session.h"

namespace mica {

Json GenerationValue(const Json& given, const char* name);
int CacheBits(const Json& given);
// All of it but the tokens that end a text.
GenerationOptions GenerationOptionsOf(const Json& given, uint64_t seed, bool alternatives);
// "first token after 1.23 s; prompt: 512 tokens, 89.1 tokens/s; answer: 64 tokens, 12.3 tokens/s".
std::string SpeedText(const Generated& generated);

}  // namespace mica
