// Values stored as they are, one a block.
#include "format/gguf/blocks.h"

namespace mica::gguf {

void DecodeF32(const std::byte* block, float* values) { *values = Load<float>(block); }
void DecodeF16(const std::byte* block, float* values) { *values = ToFloat(Load<F16>(block)); }
void DecodeBF16(const std::byte* block, float* values) { *values = ToFloat(Load<BF16>(block)); }

}  // namespace mica::gguf
