#include "model/family/family.h"

#include <charconv>
#include <cstdint>
#include <limits>

#include "base/error.h"

namespace mica {

// The table: a new family is a file that defines it, and its two words here.
extern const Family kLlama, kQwen, kGemma1, kGemma2, kSmolLm, kGranite, kPhi, kOlmo;

namespace {

std::vector<const Family*>& Families() {
  static std::vector<const Family*> families = {&kLlama,  &kQwen,    &kGemma1, &kGemma2,
                                                &kSmolLm, &kGranite, &kPhi,    &kOlmo};
  return families;
}

constexpr std::string_view kWeight = ".weight", kBias = ".bias";

// The layer's number at the front of "3.self_attn.q_proj.weight"; `rest` is what follows its dot. A spelling
// that no layer has gives a number that no layer has.
size_t TakeLayer(std::string_view& rest) {
  size_t layer = 0;
  const char* const end = rest.data() + rest.size();
  const auto [next, fault] = std::from_chars(rest.data(), end, layer);
  const bool plain =
      fault == std::errc() && next != end && *next == '.' && (rest.front() != '0' || next == rest.data() + 1);
  if (!plain) return std::numeric_limits<size_t>::max();
  rest.remove_prefix(static_cast<size_t>(next - rest.data()) + 1);
  return layer;
}

}  // namespace

const char* LinearName(LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
      return "self_attn.q_proj";
    case LinearKind::kK:
      return "self_attn.k_proj";
    case LinearKind::kV:
      return "self_attn.v_proj";
    case LinearKind::kO:
      return "self_attn.o_proj";
    case LinearKind::kGate:
      return "mlp.gate_proj";
    case LinearKind::kUp:
      return "mlp.up_proj";
    case LinearKind::kDown:
      return "mlp.down_proj";
  }
  MICA_CHECK(false);
}

void AddFamily(const Family& family) { Families().push_back(&family); }

std::vector<const ModelType*> ModelTypes() {
  std::vector<const ModelType*> types;
  for (const Family* family : Families()) {
    for (const ModelType& type : family->types) types.push_back(&type);
  }
  return types;
}

const ModelType* FindModelType(std::string_view name) {
  for (const ModelType* type : ModelTypes()) {
    if (type->name == name) return type;
  }
  return nullptr;
}

std::string JoinNames(std::span<const ModelType* const> types, std::string_view conjunction,
                      std::string_view ModelType::*remark) {
  std::string text;
  for (size_t i = 0; i < types.size(); ++i) {
    if (i > 0) text += i + 1 < types.size() ? ", " : fmt::format(" {} ", conjunction);
    text += types[i]->name;
    if (remark != nullptr && !(types[i]->*remark).empty()) text += fmt::format(" ({})", types[i]->*remark);
  }
  return text;
}

std::string WeightName(std::string_view module) { return std::string(module).append(kWeight); }
std::string BiasName(std::string_view module) { return std::string(module).append(kBias); }

std::string ModuleName(std::string_view weight) {
  MICA_CHECK(weight.ends_with(kWeight));
  return std::string(weight.substr(0, weight.size() - kWeight.size()));
}

std::string LayerName(const TensorNames& names, size_t layer, std::string_view part) {
  return fmt::format("{}{}.{}", names.layers, layer, part);
}
std::string LayerName(const Family& family, size_t layer, std::string_view part) {
  return LayerName(family.names, layer, part);
}

std::string LinearTensorName(const TensorNames& names, size_t layer, LinearKind kind) {
  return LayerName(names, layer, names.linears[static_cast<size_t>(kind)]);
}
std::string LinearTensorName(const Family& family, size_t layer, LinearKind kind) {
  return LinearTensorName(family.names, layer, kind);
}

std::string NormTensorName(const TensorNames& names, size_t layer, NormKind norm) {
  return LayerName(names, layer, names.norms[static_cast<size_t>(norm)]);
}

TensorPlace PlaceOf(const Family& family, std::string_view tensor) { return PlaceOf(family.names, tensor); }

TensorPlace PlaceOf(const TensorNames& names, std::string_view tensor) {
  TensorPlace place;
  std::string_view part = tensor;
  if (part.starts_with(names.layers)) {
    part.remove_prefix(std::string_view(names.layers).size());
    place.layer = TakeLayer(part);
  }
  if (part.ends_with(kBias)) place.role = TensorRole::kBias;
  if (!part.ends_with(kWeight)) return place;
  part.remove_suffix(kWeight.size());
  if (!place.layer) {
    if (part == names.embedding) place.role = TensorRole::kEmbedding;
    if (part == names.head) place.role = TensorRole::kHead;
    if (part == names.final_norm) place.role = TensorRole::kFinalNorm;
    return place;
  }
  for (const NormKind norm : kNormKinds) {
    const char* const name = names.norms[static_cast<size_t>(norm)];
    if (name == nullptr || part != name) continue;
    place.role = TensorRole::kNorm;
    place.norm = norm;
  }
  for (const LinearKind kind : kLinearKinds) {
    if (part != names.linears[static_cast<size_t>(kind)]) continue;
    place.role = TensorRole::kLinear;
    place.kind = kind;
  }
  return place;
}

Treatment TreatmentOf(TensorRole role, bool tied_head) {
  switch (role) {
    case TensorRole::kLinear:
      return Treatment::kCompressed;
    case TensorRole::kEmbedding:
      return Treatment::kGivenWidth;
    case TensorRole::kHead:
      return tied_head ? Treatment::kLeftOut : Treatment::kGivenWidth;  // tied: the embedding serves
    case TensorRole::kFinalNorm:
    case TensorRole::kNorm:
    case TensorRole::kBias:
    case TensorRole::kOther:
      return Treatment::kCopied;
  }
  MICA_CHECK(false);
}

std::vector<float> NormFactors(const Family& family, std::vector<float> stored) {
  if (family.norm_offset != 0.0f) {
    for (float& weight : stored) weight += family.norm_offset;
  }
  return stored;
}

}  // namespace mica
