// Any bytes either become a text, which is UTF-8 and not blank, or throw Error. The first byte says of which
// kind.
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "io/text/datasets.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  using namespace std::string_literals;
  SetLogLevel(LogLevel::kError);
  WriteSeeds(*argc, *argv,
             {"0 = A house = \n \n It has rooms . \n", "1 no it was n't black monday \n but while \n",
              "2{\"text\":\"a\\nb \\u00e9\",\"url\":\"x\",\"list\":[{\"text\":1}]}\n{\"text\":\"c\"}\n",
              "3caf\xc3\xa9\r\n",
              // "a text" and a newline, by gzip, zstd, and zstd behind a frame that is skipped
              "3\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x54\x28\x49\xad\x28\xe1\x02\0\xce\xb5\x5b\xb1\x07\0\0\0"s,
              "3\x28\xb5\x2f\xfd\x20\x07\x39\0\0\x61\x20\x74\x65\x78\x74\x0a"s,
              "3\x50\x2a\x4d\x18\4\0\0\0abcd\x28\xb5\x2f\xfd\x20\x07\x39\0\0\x61\x20\x74\x65\x78\x74\x0a"s,
              "3a\0 \0t\0e\0x\0t\0"s, "3version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"s,
              "3<!DOCTYPE html>"s, "3IQ== 0\nIg== 1\nIw== 2\n"s, "3\n\x0e\n\5<unk>\x15\0\0\0\0\x18\2"s});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr DataKind kKinds[] = {DataKind::kWikitext2, DataKind::kPtb, DataKind::kC4, DataKind::kText};
  try {
    const std::string text =
        TextOf(std::as_bytes(std::span(data + 1, size - 1)), kKinds[data[0] % 4], "fuzz");
    MICA_CHECK(!text.empty() && FirstInvalidUtf8(text) == std::string_view::npos);
  } catch (const Error&) {
  }
  return 0;
}
