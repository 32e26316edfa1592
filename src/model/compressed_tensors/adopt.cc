#include "model/compressed_tensors/adopt.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "format/compressed_tensors/parts.h"
#include "model/compressed_tensors/quantization_config.h"
#include "model/packed.h"

namespace mica {
namespace {

constexpr const char *kPacked = ".weight_packed", *kScale = ".weight_scale", *kShape = ".weight_shape",
                     *kZeroPoint = ".weight_zero_point", *kGroupIndex = ".weight_g_idx";
constexpr uint64_t kMaxExtent = uint64_t{1} << 24;

std::string NameOf(const TensorView& tensor) {
  return fmt::format("{}: tensor {}", tensor.file, Printable(tensor.name));
}

// What transformers makes of a module, which targets may name.
const char* ClassOf(const ModelConfig& config, const std::string& module) {
  return module == config.family->names.embedding ? "Embedding" : "Linear";
}

class Module {
 public:
  Module(const Checkpoint& checkpoint, const TensorView& packed, const std::string& name,
         const IntegerScheme& scheme)
      : checkpoint_(checkpoint), packed_(packed), name_(name), scheme_(scheme) {}

  TensorView Adopted() const {
    auto parts = std::make_shared<CompressedTensorsParts>();
    parts->name = name_;
    parts->bits = scheme_.bits;
    ReadShape(*parts);
    parts->group = scheme_.group.value_or(parts->cols);
    if (parts->cols % parts->group != 0) {
      Fail("{}: rows have {} columns, which groups of {} ({}) do not divide", NameOf(packed_), parts->cols,
           parts->group, scheme_.name);
    }
    CheckType(packed_, DType::kI32);
    parts->words = packed_.data;
    parts->packing = PackingOf(packed_, parts->cols, 1, parts->rows);
    ReadScales(*parts);
    ReadZeroPoints(*parts);
    ReadGroupIndex(*parts);
    TensorView tensor;
    tensor.name = name_ + ".weight";
    tensor.dtype = DType::kI32;
    tensor.shape = {parts->rows, parts->cols};
    tensor.data = packed_.data;
    tensor.file = packed_.file;
    tensor.integers = std::move(parts);
    return tensor;
  }

 private:
  const TensorView& Part(const char* suffix) const {
    if (const TensorView* found = checkpoint_.Find(name_ + suffix)) return *found;
    Fail("{}: tensor {}{} is missing beside {}; the checkpoint is incomplete", packed_.file, Printable(name_),
         suffix, Printable(packed_.name));
  }

  static void CheckType(const TensorView& tensor, DType dtype) {
    if (tensor.dtype != dtype)
      Fail("{} has dtype {}, expected {}", NameOf(tensor), DTypeName(tensor.dtype), DTypeName(dtype));
  }

  void ReadShape(CompressedTensorsParts& parts) const {
    const TensorView& shape = Part(kShape);
    CheckType(shape, DType::kI64);
    int64_t extents[2] = {};
    if (shape.shape != std::vector<uint64_t>{2})
      Fail("{} has shape {}, expected [2]", NameOf(shape), ShapeText(shape.shape));
    std::memcpy(extents, shape.data.data(), sizeof(extents));
    for (const int64_t extent : extents) {
      if (extent < 1 || extent > static_cast<int64_t>(kMaxExtent))
        Fail("{} holds {}, expected 1 to {}", NameOf(shape), extent, kMaxExtent);
    }
    parts.rows = static_cast<size_t>(extents[0]);
    parts.cols = static_cast<size_t>(extents[1]);
    parts.shape = shape.data;
  }

  // Of `codes` codes along an axis of the tensor; along the other there are `others`.
  CodePacking PackingOf(const TensorView& tensor, size_t codes, size_t axis, size_t others) const {
    std::string expected;
    for (const CodePacking packing : {CodePacking::kDense, CodePacking::kWholeCodes}) {
      std::vector<uint64_t> shape(2, others);
      shape[axis] = WordsOf(codes, scheme_.bits, packing);
      if (tensor.shape == shape) return packing;
      if (expected.empty()) expected = ShapeText(shape);
    }
    Fail("{} has shape {}, expected {} of {} bits ({})", NameOf(tensor), ShapeText(tensor.shape), expected,
         scheme_.bits, scheme_.name);
  }

  void ReadScales(CompressedTensorsParts& parts) const {
    const TensorView& scales = Part(kScale);
    if (scales.dtype != DType::kF16 && scales.dtype != DType::kBF16 && scales.dtype != DType::kF32)
      Fail("{} has dtype {}, expected F16, BF16 or F32", NameOf(scales), DTypeName(scales.dtype));
    const std::vector<uint64_t> shape = {parts.rows, parts.groups()};
    if (scales.shape != shape)
      Fail("{} has shape {}, expected {} ({})", NameOf(scales), ShapeText(scales.shape), ShapeText(shape),
           scheme_.name);
    parts.scale_dtype = scales.dtype;
    parts.scales = scales.data;
  }

  void ReadZeroPoints(CompressedTensorsParts& parts) const {
    if (scheme_.symmetric) {
      if (const TensorView* zeros = checkpoint_.Find(name_ + kZeroPoint))
        Fail("{} is there, but config.json says that {} is symmetric", NameOf(*zeros), scheme_.name);
      return;
    }
    const TensorView& zeros = Part(kZeroPoint);
    CheckType(zeros, DType::kI32);
    parts.zero_packing = PackingOf(zeros, parts.rows, 0, parts.groups());
    parts.zeros = zeros.data;
  }

  void ReadGroupIndex(CompressedTensorsParts& parts) const {
    const TensorView* index = checkpoint_.Find(name_ + kGroupIndex);
    if (index == nullptr) return;
    CheckType(*index, DType::kI32);
    if (index->shape != std::vector<uint64_t>{parts.cols})
      Fail("{} has shape {}, expected [{}]", NameOf(*index), ShapeText(index->shape), parts.cols);
    std::vector<int32_t> groups(parts.cols);
    std::memcpy(groups.data(), index->data.data(), index->data.size());
    // -1 throughout: nothing was put there.
    if (std::ranges::all_of(groups, [](int32_t group) { return group == -1; })) return;
    for (size_t c = 0; c < groups.size(); ++c) {
      if (groups[c] < 0 || static_cast<size_t>(groups[c]) >= parts.groups())
        Fail("{} holds {} for column {}, expected 0 to {}", NameOf(*index), groups[c], c, parts.groups() - 1);
    }
    parts.group_of = index->data;
  }

  const Checkpoint& checkpoint_;
  const TensorView& packed_;
  const std::string& name_;
  const IntegerScheme& scheme_;
};

// The module that a tensor is a part of, by this ending.
std::optional<std::string> ModuleBefore(const std::string& tensor, std::string_view ending) {
  if (!tensor.ends_with(ending)) return std::nullopt;
  return tensor.substr(0, tensor.size() - ending.size());
}

void CheckLayersPacked(const Checkpoint& checkpoint, const ModelConfig& config,
                       const CompressedTensorsConfig& quantization) {
  std::vector<std::string> modules;
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const LinearKind kind : kLinearKinds) modules.push_back(LinearTensorName(*config.family, layer, kind));
    for (const FusedLinears& fused : config.family->fused)
      modules.push_back(LayerName(*config.family, layer, fused.part));
  }
  for (const std::string& name : modules) {
    const TensorView* plain = checkpoint.Find(WeightName(name));
    const IntegerScheme* scheme = quantization.SchemeOf(name, "Linear");
    if (plain == nullptr || scheme == nullptr) continue;
    Fail(
        "{} is there, but config.json says that {} is stored in packed integers ({}); the two do not "
        "belong together",
        NameOf(*plain), name, scheme->name);
  }
}

}  // namespace

void AdoptCompressedTensors(Checkpoint& checkpoint, const ModelConfig& config) {
  const std::string where = (checkpoint.directory() / "config.json").string() + ": quantization_config";
  const CompressedTensorsConfig quantization =
      CompressedTensorsConfig::Parse(config.json.at("quantization_config"), where);
  CheckLayersPacked(checkpoint, config, quantization);
  std::vector<TensorView> tensors;
  for (const TensorView& stored : checkpoint.tensors()) {
    bool is_part = false;
    for (const char* ending : {kScale, kShape, kZeroPoint, kGroupIndex}) {
      const std::optional<std::string> module = ModuleBefore(stored.name, ending);
      if (!module) continue;
      is_part = true;
      if (checkpoint.Find(*module + kPacked) == nullptr) {
        Fail(
            "{} is there without {}{}; it is of a format that is not supported, or the checkpoint is "
            "incomplete",
            NameOf(stored), Printable(*module), kPacked);
      }
    }
    if (is_part) continue;
    const std::optional<std::string> module = ModuleBefore(stored.name, kPacked);
    if (!module) {
      tensors.push_back(stored);
      continue;
    }
    if (const TensorView* plain = checkpoint.Find(WeightName(*module)))
      Fail("{} is there beside {}; the checkpoint is damaged", NameOf(*plain), Printable(stored.name));
    const char* const class_name = ClassOf(config, *module);
    const IntegerScheme* scheme = quantization.SchemeOf(*module, class_name);
    if (scheme == nullptr) {
      Fail("{}: {} {}, but {} is stored", where,
           quantization.Ignores(*module, class_name) ? "ignores" : "has no target for", Printable(*module),
           NameOf(stored));
    }
    tensors.push_back(Module(checkpoint, stored, *module, *scheme).Adopted());
  }
  checkpoint.Adopt(std::move(tensors));
}

Checkpoint OpenCompressedTensors(const std::filesystem::path& directory, const ModelConfig& config) {
  Checkpoint checkpoint = Checkpoint::Open(directory);
  CheckRecordedFiles(checkpoint);
  AdoptCompressedTensors(checkpoint, config);
  return checkpoint;
}

}  // namespace mica
