#include "format/gguf/decode.h"

#include "base/error.h"
#include "format/gguf/blocks.h"

namespace mica {
namespace {

using DecodeBlock = void (*)(const std::byte* block, float* values);

DecodeBlock DecoderOf(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return gguf::DecodeF32;
    case GgmlType::kF16:
      return gguf::DecodeF16;
    case GgmlType::kBF16:
      return gguf::DecodeBF16;
    case GgmlType::kQ4_0:
      return gguf::DecodeQ4_0;
    case GgmlType::kQ4_1:
      return gguf::DecodeQ4_1;
    case GgmlType::kQ5_0:
      return gguf::DecodeQ5_0;
    case GgmlType::kQ5_1:
      return gguf::DecodeQ5_1;
    case GgmlType::kQ8_0:
      return gguf::DecodeQ8_0;
    case GgmlType::kQ2_K:
      return gguf::DecodeQ2_K;
    case GgmlType::kQ3_K:
      return gguf::DecodeQ3_K;
    case GgmlType::kQ4_K:
      return gguf::DecodeQ4_K;
    case GgmlType::kQ5_K:
      return gguf::DecodeQ5_K;
    case GgmlType::kQ6_K:
      return gguf::DecodeQ6_K;
    case GgmlType::kIQ4_NL:
      return gguf::DecodeIQ4_NL;
    case GgmlType::kIQ4_XS:
      return gguf::DecodeIQ4_XS;
    case GgmlType::kIQ2_XXS:
      return gguf::DecodeIQ2_XXS;
    case GgmlType::kIQ2_XS:
      return gguf::DecodeIQ2_XS;
    case GgmlType::kIQ2_S:
      return gguf::DecodeIQ2_S;
    case GgmlType::kIQ3_XXS:
      return gguf::DecodeIQ3_XXS;
    case GgmlType::kIQ3_S:
      return gguf::DecodeIQ3_S;
    default:
      return nullptr;
  }
}

}  // namespace

bool CanDecode(GgmlType type) { return DecoderOf(type) != nullptr; }

void DecodeRow(GgmlType type, std::span<const std::byte> bytes, std::span<float> values) {
  const DecodeBlock decode = DecoderOf(type);
  MICA_CHECK(decode != nullptr);
  const GgmlTypeFacts& facts = FactsOf(type);
  MICA_CHECK(values.size() % facts.block_cols == 0);
  const size_t blocks = values.size() / facts.block_cols;
  MICA_CHECK(bytes.size() == blocks * facts.block_bytes);
  for (size_t i = 0; i < blocks; ++i)
    decode(bytes.data() + i * facts.block_bytes, values.data() + i * facts.block_cols);
}

}  // namespace mica
