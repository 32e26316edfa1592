// Any bytes either are a tokenizer.json, which then encodes any text to ids that it decodes, and whose tokens
// stand for the bytes of the text, or throw Error. The first line is the text, the rest the file.
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "check_tokenizer.h"
#include "io/text/tokenizer_json.h"
#include "seeds.h"

namespace mica {
namespace {

void Run(std::string_view text, std::string_view file) {
  CheckTokenizer(Tokenizer(std::make_unique<BpeEncoder>(ReadTokenizerJson(file, {}, "fuzz"))), text);
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  mica::SetLogLevel(mica::LogLevel::kError);
  mica::WriteSeeds(*argc, *argv,
                   {R"(a ab<s> 12 the  b
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":9,"content":"<s>","single_word":false,"lstrip":true,
"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence",
"pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"},
"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":true,
"trim_offsets":true,"use_regex":true}]},"post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel"},
{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[9],"tokens":["<s>"]}}}]},"decoder":{"type":"ByteLevel"},
"model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġa":4,"1":5,"t":6,"h":7},"merges":["a b","Ġ a"]}})",
                    R"(a b  ab</s>c
{"added_tokens":[{"id":1,"content":"</s>","special":true,"normalized":true},{"id":20,"content":"c","single_word":true,
"rstrip":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Prepend","prepend":"▁"},{"type":"Replace",
"pattern":{"String":" "},"content":"▁"},{"type":"Lowercase"},{"type":"Strip","strip_left":true,"strip_right":true}]},
"pre_tokenizer":null,"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"BPE",
"unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"</s>":1,"▁":2,"a":3,"b":4,"ab":5,"▁ab":6,"<0x63>":7},
"merges":[["a","b"],["▁","ab"]]}})",
                    R"(a b
{"normalizer":{"type":"NFD"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"a|\\d"},
"behavior":"MergedWithNext","invert":true},{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}]},
"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true},"model":{"vocab":{"a":0,"▁":1},"merges":[]}})"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  if (line == std::string_view::npos || line > mica::kMaxFuzzedTextBytes) return 0;
  try {
    mica::Run(input.substr(0, line), input.substr(line + 1));
  } catch (const mica::Error&) {
  }
  return 0;
}
