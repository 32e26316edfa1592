// tokenizer.json of Hugging Face's tokenizers library, as far as byte-pair encoding goes.
#pragma once

#include <string>
#include <string_view>

#include "io/text/bpe_encoder.h"
#include "io/text/tokenizer_companions.h"
#include "io/text/tokenizer_json_file.h"

namespace mica {

// Reads one. Throws Error naming `where` and the key of what is wrong, or is not understood: nothing that
// could change an id is passed over. Its truncation and padding are left out on purpose: they are of the
// training it was saved in. Of a post-processor only the token that it puts in front counts.
BpeParts ReadTokenizerJson(std::string_view text, const TokenizerCompanions& companions,
                           const std::string& where);
// The same of a file that is parsed; fingerprint: SHA-256 of its text.
BpeParts ReadTokenizerJson(const TokenizerJsonFile& file, const std::string& fingerprint,
                           const TokenizerCompanions& companions, const std::string& where);

}  // namespace mica
