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

// The factors of the rotary embedding (keys.h), in GGUF files alone.
inline constexpr const char* kRopeFactorsName = "rope_freqs.weight";

}  // namespace mica
