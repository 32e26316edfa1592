// Names of tensors in GGUF files and in the checkpoints of Hugging Face, by what the tensors are.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/family/family.h"

namespace mica {

// A weight or bias of a module, and which module it is.
struct ModuleTensor {
  TensorPlace place;  // role and kind of the module, of a bias as well
  bool bias = false;
};
// Of MODULE.weight or MODULE.bias; nothing for a tensor that `names` do not know.
std::optional<ModuleTensor> ModuleTensorOf(const TensorNames& names, std::string_view tensor);
// Its name: what ModuleTensorOf was given.
std::string TensorNameOf(const TensorNames& names, const ModuleTensor& tensor);

// Factors of the rotary embedding (rope.h), in GGUF files alone: of llama3, and of longrope's two kinds of
// windows.
inline constexpr const char* kRopeFactorsName = "rope_freqs.weight";
inline constexpr const char* kRopeFactorsLong = "rope_factors_long.weight";
inline constexpr const char* kRopeFactorsShort = "rope_factors_short.weight";
inline bool IsRopeFactors(std::string_view tensor) {
  return tensor == kRopeFactorsName || tensor == kRopeFactorsLong || tensor == kRopeFactorsShort;
}

}  // namespace mica
