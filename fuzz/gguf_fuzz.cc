// Any bytes either parse as a GGUF file, whose tensors then lie inside them and can be decoded, or throw
// Error.
#include <algorithm>

#include "base/error.h"
#include "format/gguf/decode.h"
#include "io/container/gguf.h"
#include "seeds.h"

using namespace mica;

namespace {

// A file of some tensors of all types and keys of many.
void WriteEverything(const std::string& path) {
  std::vector<GgufTensorSpec> specs = {{"none", GgmlType::kF32, {0, 3}}, {"scalar", GgmlType::kF32, {}}};
  for (const GgmlTypeFacts& facts : GgmlTypes())
    specs.push_back({fmt::format("{}.weight", facts.name), facts.type, {2, facts.block_cols}});
  const std::vector<GgufKey> keys = {
      {"general.architecture", std::string("llama")},
      {"general.alignment", uint32_t{8}},
      {"scores", GgufArray{std::vector<float>{0.5f, -1.0f}}},
      {"tokens", GgufArray{std::vector<std::string>{"<s>", "", "a"}}},
      {"flags", GgufArray{std::vector<bool>{true, false}}},
      {"nested", GgufArray{std::vector<GgufArray>{{std::vector<int64_t>{1}}, {std::vector<uint8_t>{}}}}},
      {"add_bos", true},
      {"double", 0.25},
  };
  GgufWriter writer(path, specs, keys);
  for (const GgufTensorSpec& spec : specs)
    writer.Write(std::vector<std::byte>(SpecBytes(spec), std::byte{0x35}));
  writer.Commit();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  WriteSeeds(*argc, *argv, {MadeBy(WriteEverything), MadeBy([](const std::string& path) {
                              GgufWriter writer(path, {{"t", GgmlType::kQ4_0, {2, 32}}}, {{"k", uint8_t{1}}});
                              writer.Write(std::vector<std::byte>(36));
                              writer.Commit();
                            })});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  try {
    const GgufFile file = ParseGguf(bytes, "fuzz");
    for (const GgufTensor& tensor : file.tensors) {
      MICA_CHECK(tensor.data.size() == SpecBytes(tensor));
      if (tensor.data.empty()) continue;
      MICA_CHECK(tensor.data.data() >= bytes.data());
      MICA_CHECK(tensor.data.data() + tensor.data.size() <= bytes.data() + bytes.size());
      if (!CanDecode(tensor.type)) continue;
      // The bytes of the last row bound its values: no type has more than 8 a byte.
      std::vector<float> values(tensor.cols);
      DecodeRow(tensor.type, tensor.data.last(tensor.data.size() / tensor.rows), values);
    }
  } catch (const Error&) {
  }
  return 0;
}
