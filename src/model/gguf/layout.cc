#include "model/gguf/layout.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "base/error.h"
#include "model/gguf/architecture.h"
#include "model/gguf/keys.h"
#include "model/gguf/rope.h"
#include "model/gguf/rows.h"
#include "model/weights.h"

namespace mica {
namespace {

constexpr uint32_t kQuantizationVersion = 2;  // of the blocks' layouts

// general.file_type by the type of most matrices. Readers show it and do not depend on it.
struct FileType {
  GgmlType type;
  uint32_t number;
};
constexpr FileType kFileTypes[] = {
    {GgmlType::kF32, 0},      {GgmlType::kF16, 1},     {GgmlType::kQ4_0, 2},     {GgmlType::kQ4_1, 3},
    {GgmlType::kQ8_0, 7},     {GgmlType::kQ5_0, 8},    {GgmlType::kQ5_1, 9},     {GgmlType::kQ2_K, 10},
    {GgmlType::kQ3_K, 12},    {GgmlType::kQ4_K, 15},   {GgmlType::kQ5_K, 17},    {GgmlType::kQ6_K, 18},
    {GgmlType::kIQ2_XXS, 19}, {GgmlType::kIQ2_XS, 20}, {GgmlType::kIQ3_XXS, 23}, {GgmlType::kIQ1_S, 24},
    {GgmlType::kIQ4_NL, 25},  {GgmlType::kIQ3_S, 26},  {GgmlType::kIQ2_S, 28},   {GgmlType::kIQ4_XS, 30},
    {GgmlType::kIQ1_M, 31},   {GgmlType::kBF16, 32},   {GgmlType::kTQ1_0, 36},   {GgmlType::kTQ2_0, 37},
};

// Makes the matrices of a layer, and their biases, parts of one tensor of the file.
void Fuse(const GgufArchitecture& architecture, const FusedLinears& fused, size_t layer,
          std::vector<GgufModelTensor>& tensors) {
  const std::string module = LayerName(architecture.names, layer, fused.part);
  for (const bool bias : {false, true}) {
    std::vector<GgufModelTensor> parts;
    std::erase_if(tensors, [&](GgufModelTensor& tensor) {
      const bool part = tensor.place && tensor.place->bias == bias && tensor.place->place.layer == layer &&
                        tensor.place->place.role == TensorRole::kLinear &&
                        std::ranges::find(fused.kinds, tensor.place->place.kind) != fused.kinds.end();
      if (part) parts.push_back(std::move(tensor));
      return part;
    });
    if (parts.empty()) continue;
    MICA_CHECK(parts.size() == fused.kinds.size());
    GgufTensorSpec& whole = parts.front().spec;
    whole.name = bias ? BiasName(module) : WeightName(module);
    for (size_t i = 1; i < parts.size(); ++i) {
      if (parts[i].spec.type != whole.type) {
        Fail("{} has type {} and {} type {}; a {} GGUF file stores both in one tensor, {}, of one type",
             parts[0].source, FactsOf(whole.type).name, parts[i].source, FactsOf(parts[i].spec.type).name,
             architecture.name, whole.name);
      }
      whole.shape[0] += parts[i].spec.shape[0];
      parts[i].spec.name.clear();
    }
    std::ranges::move(parts, std::back_inserter(tensors));
  }
}

}  // namespace

std::vector<GgufTensorSpec> GgufModelLayout::Specs() const {
  std::vector<GgufTensorSpec> specs;
  for (const GgufModelTensor& tensor : tensors) {
    if (!tensor.later_part()) specs.push_back(tensor.spec);
  }
  return specs;
}

GgufModelLayout MakeGgufLayout(const ModelConfig& config, const GgufLayoutSettings& settings) {
  const GgufArchitecture& architecture = GgufArchitectureOf(config);
  GgufModelLayout layout;
  std::map<GgmlType, uint64_t> weights;
  const auto add = [&](const ModuleTensor& tensor, std::vector<uint64_t> shape,
                       GgmlType type) -> GgufModelTensor& {
    layout.tensors.push_back({.spec = {TensorNameOf(architecture.names, tensor), type, std::move(shape)},
                              .place = tensor,
                              .source = TensorNameOf(config.family->names, tensor),
                              .row_order = {}});
    return layout.tensors.back();
  };
  const auto add_matrix = [&](const TensorPlace& place, size_t rows, size_t cols) -> GgufModelTensor& {
    return add({place}, {rows, cols}, settings.type_of(place));
  };

  add_matrix({.role = TensorRole::kEmbedding, .layer = {}}, config.vocab, config.hidden);
  add({{.role = TensorRole::kFinalNorm, .layer = {}}}, {config.hidden}, GgmlType::kF32);
  if (!config.tied_head) add_matrix({.role = TensorRole::kHead, .layer = {}}, config.vocab, config.hidden);
  for (RopeFactorTensor& tensor : RopeFactorTensors(config)) {
    layout.tensors.push_back({.spec = {tensor.name, GgmlType::kF32, {tensor.factors.size()}},
                              .place = {},
                              .source = {},
                              .row_order = {},
                              .factors = std::move(tensor.factors)});
  }
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const NormKind norm : kNormKinds) {
      if (config.Has(norm))
        add({{.role = TensorRole::kNorm, .layer = layer, .norm = norm}}, {config.NormWidth(norm)},
            GgmlType::kF32);
    }
    for (const LinearKind kind : kLinearKinds) {
      const TensorPlace place{.role = TensorRole::kLinear, .layer = layer, .kind = kind};
      const MatrixShape shape = LinearShape(config, kind);
      const std::vector<uint32_t> order = GgufRowOrder(architecture, config, kind);
      GgufModelTensor& matrix = add_matrix(place, shape.rows, shape.cols);
      matrix.row_order = order;
      weights[matrix.spec.type] += uint64_t{shape.rows} * shape.cols;
      if (settings.has_bias ? settings.has_bias(layer, kind) : HasBias(config, kind))
        add({.place = place, .bias = true}, {shape.rows}, GgmlType::kF32).row_order = order;
    }
    for (const FusedLinears& fused : architecture.fused)
      Fuse(architecture, fused, layer, layout.tensors);
  }

  layout.keys = ConfigKeysOf(config, settings.name);
  const auto most = std::max_element(weights.begin(), weights.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  for (const FileType& label : kFileTypes) {
    if (label.type == most->first) layout.keys.push_back({"general.file_type", label.number});
  }
  layout.keys.push_back({"general.quantization_version", kQuantizationVersion});
  layout.keys.insert(layout.keys.end(), settings.tokenizer_keys.begin(), settings.tokenizer_keys.end());
  return layout;
}

}  // namespace mica
