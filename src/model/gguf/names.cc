#include "model/gguf/names.h"

#include "base/error.h"

namespace mica {

std::optional<ModuleTensor> ModuleTensorOf(const TensorNames& names, std::string_view tensor) {
  const size_t dot = tensor.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view module = tensor.substr(0, dot);
  ModuleTensor found{.place = PlaceOf(names, WeightName(module)), .bias = tensor == BiasName(module)};
  if (found.place.role == TensorRole::kOther || (!found.bias && tensor != WeightName(module)))
    return std::nullopt;
  return found;
}

std::string TensorNameOf(const TensorNames& names, const ModuleTensor& tensor) {
  const auto module = [&]() -> std::string {
    const TensorPlace& place = tensor.place;
    switch (place.role) {
      case TensorRole::kEmbedding:
        return names.embedding;
      case TensorRole::kHead:
        return names.head;
      case TensorRole::kFinalNorm:
        return names.final_norm;
      case TensorRole::kNorm:
        return NormTensorName(names, *place.layer, place.norm);
      case TensorRole::kLinear:
        return LinearTensorName(names, *place.layer, place.kind);
      case TensorRole::kBias:
      case TensorRole::kOther:
        break;
    }
    MICA_CHECK(false);
  };
  return tensor.bias ? BiasName(module()) : WeightName(module());
}

}  // namespace mica
