#include "model/gguf/writing.h"

#include <optional>
#include <vector>

#include "io/container/hub_cache.h"
#include "model/gguf/rows.h"
#include "model/gguf/vocabulary.h"

namespace mica {

namespace fs = std::filesystem;

GgufLayoutSettings LayoutSettingsOf(const ModelWeights& weights, const fs::path& model) {
  const ModelConfig& config = weights.config();
  const Checkpoint& checkpoint = weights.checkpoint();
  GgufLayoutSettings settings;
  const fs::path named = fs::absolute(model).lexically_normal();
  settings.name = (named.has_filename() ? named : named.parent_path()).filename().string();
  if (!fs::is_directory(model)) settings.name = named.stem().string();
  if (const std::optional<std::string> name = HubModelName(model)) settings.name = *name;
  settings.tokenizer_keys = checkpoint.gguf() != nullptr ? TokenizerKeysIn(*checkpoint.gguf())
                                                         : TokenizerKeysOf(checkpoint.directory(), config);
  settings.has_bias = [&weights](size_t layer, LinearKind kind) {
    return weights.IsRead(BiasName(LinearTensorName(*weights.config().family, layer, kind)));
  };
  return settings;
}

void WriteGgufRows(std::span<const std::byte> rows, const GgufModelTensor& tensor, GgufWriter& writer) {
  if (tensor.row_order.empty()) return writer.Write(rows);
  std::vector<std::byte> stored(rows.size());
  ArrangeRows(rows, tensor.row_order, stored);
  writer.Write(stored);
}

bool WriteGgufVector(const ModelWeights& weights, const GgufModelLayout& layout,
                     const GgufModelTensor& tensor, GgufWriter& writer) {
  const auto write = [&](const std::vector<float>& values) {
    WriteGgufRows(std::as_bytes(std::span(values)), tensor, writer);
    return true;
  };
  if (!tensor.place) return write(tensor.factors);
  const TensorPlace& place = tensor.place->place;
  switch (place.role) {
    case TensorRole::kFinalNorm:
      return write(weights.FinalNorm());
    case TensorRole::kNorm:
      return write(weights.Norm(*place.layer, place.norm));
    case TensorRole::kLinear:
      return tensor.place->bias && write(weights.Bias(*place.layer, place.kind));
    default:
      return false;
  }
}

}  // namespace mica
