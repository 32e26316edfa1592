#include "model/export.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/half.h"
#include "base/json.h"
#include "base/matrix.h"
#include "base/output.h"
#include "base/output_directory.h"
#include "base/system.h"
#include "base/threads.h"
#include "base/units.h"
#include "io/container/gguf.h"
#include "io/container/safetensors.h"
#include "io/container/shard_index.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/companions.h"
#include "model/compressed_tensors/adopt.h"
#include "model/compressed_tensors/quantization_config.h"
#include "model/family/family.h"
#include "model/gguf/layout.h"
#include "model/gguf/writing.h"
#include "model/packed.h"
#include "model/weights.h"
#include "ops/codes/codes.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSliceElements = 8 << 20;  // 32 MiB of FP32 and its copy in the type written
constexpr uint64_t kSlackBytes = 1 << 20;     // headers, index, config

// One tensor of the exported checkpoint.
struct Item {
  TensorSpec spec;
  std::string packed_name;            // of a packed matrix, or empty
  const TensorView* plain = nullptr;  // the tensor to convert or copy
  std::vector<Item> parts = {};       // of matrices that the family stores as one: its rows, part by part
};

uint64_t Bytes(const TensorSpec& spec) {
  uint64_t bytes = DTypeBytes(spec.dtype);
  for (const uint64_t extent : spec.shape) bytes *= extent;
  return bytes;
}

// Makes the matrices that the family stores as one items that do; sorted by name again.
void FuseItems(const ModelConfig& config, std::vector<Item>& items) {
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const FusedLinears& fused : config.family->fused) {
      const std::string module = LayerName(*config.family, layer, fused.part);
      Item whole{{WeightName(module), DType::kF32, {0, 0}}, "", nullptr};
      for (const LinearKind kind : fused.kinds) {
        const std::string name = WeightName(LinearTensorName(*config.family, layer, kind));
        const auto found = std::ranges::find(items, name, [](const Item& item) { return item.spec.name; });
        if (found == items.end()) break;  // stored as one already
        const TensorSpec& spec = found->spec;
        whole.spec.dtype = spec.dtype;
        whole.spec.shape = {whole.spec.shape[0] + spec.shape[0], spec.shape[1]};
        whole.parts.push_back(std::move(*found));
        items.erase(found);
      }
      if (!whole.parts.empty()) items.push_back(std::move(whole));
    }
  }
  std::ranges::sort(items, {}, [](const Item& item) { return item.spec.name; });
}

std::vector<Item> PlanItems(const Checkpoint& checkpoint, DType dtype) {
  std::vector<Item> items;
  std::set<std::string> parts;
  for (const std::string& name : PackedNames(checkpoint)) {
    const StoredMatrix stored = OpenPacked(checkpoint, name, false);
    for (const TensorView* tensor : stored.tensors) parts.insert(tensor->name);
    items.push_back({{WeightName(name), dtype, {stored.rows(), stored.cols()}}, name, nullptr});
  }
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (parts.contains(tensor.name)) continue;
    items.push_back({{tensor.name, IsFloat(tensor) ? dtype : tensor.dtype, tensor.shape}, "", &tensor});
  }
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return a.spec.name < b.spec.name; });
  return items;
}

// Values in the type that is written; those of the tensor called `name`.
std::vector<std::byte> Converted(const std::string& name, std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * DTypeBytes(dtype));
  const auto convert = [&]<typename T>(T* out, auto to) {
    constexpr size_t kEach = size_t{1} << 16;
    ParallelFor((values.size() + kEach - 1) / kEach, [&](size_t part) {
      const size_t end = std::min(values.size(), (part + 1) * kEach);
      for (size_t i = part * kEach; i < end; ++i) out[i] = to(values[i]);
    });
    // Beyond the largest value rounding gives infinity.
    const auto is_finite = [](T half) { return std::isfinite(ToFloat(half)); };
    const T* const bad = std::find_if_not(out, out + values.size(), is_finite);
    if (bad != out + values.size())
      Fail("tensor {}: value {} does not fit {}; export with --dtype fp32", name,
           values[static_cast<size_t>(bad - out)], dtype == DType::kF16 ? "FP16" : "BF16");
  };
  if (dtype == DType::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
  } else if (dtype == DType::kF16) {
    convert(reinterpret_cast<F16*>(bytes.data()), [](float value) { return ToF16(value); });
  } else {
    convert(reinterpret_cast<BF16*>(bytes.data()), [](float value) { return ToBF16(value); });
  }
  return bytes;
}

void WriteItem(const Checkpoint& checkpoint, const Item& item, SafetensorsWriter& writer) {
  for (const Item& part : item.parts) WriteItem(checkpoint, part, writer);
  if (!item.parts.empty()) return;
  if (!item.packed_name.empty()) {
    const StoredMatrix stored = OpenPacked(checkpoint, item.packed_name);
    const size_t slice = std::clamp<uint64_t>(kSliceElements / stored.cols(), 1, stored.rows());
    Matrix<float> weights(slice, stored.cols());
    for (size_t row = 0; row < stored.rows(); row += slice) {
      ThrowIfInterrupted();
      const size_t count = std::min(slice, stored.rows() - row);
      Decode(stored.parts, row, weights.view().Rows(0, count));
      writer.Write(Converted(item.spec.name, {weights.data(), count * stored.cols()}, item.spec.dtype));
    }
    stored.Release(checkpoint);
    return;
  }
  const TensorView& tensor = *item.plain;
  VerifyPlain(checkpoint, tensor);
  if (!IsFloat(tensor) || (tensor.is_plain() && tensor.dtype == item.spec.dtype)) {
    writer.Write(tensor.data);
  } else {
    std::vector<float> values;
    for (uint64_t first = 0; first < tensor.elements(); first += values.size()) {
      ThrowIfInterrupted();
      values.resize(std::min(kSliceElements, tensor.elements() - first));
      ReadFloats(tensor, first, values);
      writer.Write(Converted(tensor.name, values, item.spec.dtype));
    }
  }
  checkpoint.Release(tensor);
}

// The configuration without what the packed one has more.
Json PlainConfig(Json config, DType dtype) {
  config.erase("quantization_config");
  SetWeightType(config, dtype);
  return config;
}

void CheckRoom(const fs::path& out, uint64_t bytes) {
  const uint64_t room = FreeDiskBytes(out), needed = bytes + kSlackBytes;
  if (room >= needed) return;
  Fail("{}: the disk has {} free, the exported checkpoint needs {}", out.string(),
       FormatBytes(static_cast<double>(room)), FormatBytes(static_cast<double>(needed)));
}

// What matrices are written in unless it is said: the type of a plain checkpoint's.
DType TypeOfMatrices(const ModelWeights& weights) {
  const std::string name = WeightName(LinearTensorName(*weights.config().family, 0, LinearKind::kQ));
  const TensorView* tensor = weights.checkpoint().Find(name);
  const bool quantised = tensor != nullptr && (tensor->blocks != nullptr || tensor->integers != nullptr);
  return tensor == nullptr || quantised ? DType::kF16 : tensor->dtype;
}

GgmlType GgmlTypeOf(DType dtype) {
  if (dtype == DType::kF32) return GgmlType::kF32;
  return dtype == DType::kF16 ? GgmlType::kF16 : GgmlType::kBF16;
}

// Writes the values of a tensor of the layout, in the order of the file.
void WriteGgufTensor(const ModelWeights& weights, const GgufModelLayout& layout,
                     const GgufModelTensor& tensor, DType dtype, GgufWriter& writer) {
  if (WriteGgufVector(weights, layout, tensor, writer)) return;
  const TensorPlace& place = tensor.place->place;
  const std::string& name = tensor.later_part() ? tensor.source : tensor.spec.name;
  const size_t vocab = weights.config().vocab, hidden = weights.config().hidden;
  // A slice of the rows of the embedding or the head; rows: (first, count) to [count, hidden] values.
  const auto write_rows = [&](const auto& rows) {
    const size_t slice = std::clamp<uint64_t>(kSliceElements / hidden, 1, vocab);
    for (size_t first = 0; first < vocab; first += slice) {
      ThrowIfInterrupted();
      const size_t count = std::min(slice, vocab - first);
      writer.Write(Converted(name, rows(first, count), dtype));
    }
  };
  if (place.role == TensorRole::kEmbedding) {
    Matrix<float> values;
    return write_rows([&](size_t first, size_t count) {
      values = Matrix<float>(count, hidden);
      std::vector<int32_t> ids(count);
      std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
      weights.EmbeddingRows(ids, values);
      return std::span<const float>(values.data(), values.size());
    });
  }
  if (place.role == TensorRole::kHead) {
    Array values;
    return write_rows([&](size_t first, size_t count) {
      values = weights.HeadOn(Device::Cpu(), first, count, DType::kF32);
      return std::span<const float>(values.view().host<float>().data, count * hidden);
    });
  }
  MICA_CHECK(place.role == TensorRole::kLinear);
  const Matrix<float> values = weights.Linear(*place.layer, place.kind);
  WriteGgufRows(Converted(name, {values.data(), values.size()}, dtype), tensor, writer);
}

}  // namespace

// Under one key: "dtype" where the original says so alone, else "torch_dtype", which every reader knows.
void SetWeightType(Json& config, DType dtype) {
  const bool new_key = config.contains("dtype") && !config.contains("torch_dtype");
  config[new_key ? "dtype" : "torch_dtype"] = dtype == DType::kF16    ? "float16"
                                              : dtype == DType::kBF16 ? "bfloat16"
                                                                      : "float32";
  if (!new_key) config.erase("dtype");
}

ExportFacts ExportGguf(const fs::path& model, const fs::path& out, const ExportOptions& options,
                       Progress& progress) {
  CheckFiles({.inputs = {model}, .outputs = {out}, .harmless = [](const fs::path& path) {
                return !IsPresent(path);
              }});
  CheckOutput(out);
  const ModelWeights weights = ModelWeights::Open(model);
  const ModelConfig& config = weights.config();
  const DType dtype = options.dtype.value_or(TypeOfMatrices(weights));
  GgufLayoutSettings settings = LayoutSettingsOf(weights, model);
  settings.type_of = [&](const TensorPlace&) { return GgmlTypeOf(dtype); };
  const GgufModelLayout layout = MakeGgufLayout(config, settings);
  uint64_t total = 0;
  for (const GgufTensorSpec& spec : layout.Specs()) total += SpecBytes(spec);
  CheckRoom(out.has_parent_path() ? out.parent_path() : fs::path("."), total);

  GgufWriter writer(out, layout.Specs(), layout.keys);
  progress.Begin("export", layout.tensors.size(), "tensors");
  for (const GgufModelTensor& tensor : layout.tensors) {
    ThrowIfInterrupted();
    WriteGgufTensor(weights, layout, tensor, dtype, writer);
    progress.Advance(1, tensor.source);
  }
  writer.Commit();
  progress.End();
  return {.tensors = layout.Specs().size(), .shards = 1, .file_bytes = writer.file_bytes()};
}

ExportFacts ExportPlain(const fs::path& packed, const fs::path& out, const ExportOptions& options,
                        Progress& progress) {
  const DType dtype = options.dtype.value_or(DType::kF16);
  MICA_CHECK(dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32);
  CheckModelDirectory(packed);
  const Json config = ReadJson(packed / "config.json");
  const bool is_packed = IsPacked(config, (packed / "config.json").string());
  if (!is_packed && !IsCompressedTensors(config)) {
    Fail(
        "{}: is not a packed checkpoint (config.json has no quantization_config); there is nothing to export",
        packed.string());
  }
  CheckFiles({.inputs = {packed}, .directories = {out}});
  const Checkpoint checkpoint =
      is_packed ? Checkpoint::Open(packed, true) : OpenCompressedTensors(packed, LoadConfig(packed));
  if (is_packed) CheckPackedDirectory(checkpoint);
  std::vector<Item> items = PlanItems(checkpoint, dtype);
  const ModelType* const type = FindModelType(config.value("model_type", ""));
  if (type != nullptr && !type->family->fused.empty()) FuseItems(LoadConfig(packed), items);
  std::vector<std::vector<const Item*>> shards;
  uint64_t total = 0, in_shard = 0;
  for (const Item& item : items) {
    const uint64_t bytes = Bytes(item.spec);
    if (shards.empty() || in_shard + bytes > options.shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(&item);
    in_shard += bytes;
    total += bytes;
  }
  CheckRoom(out, total);

  OutputDirectory output(out);
  ExportFacts facts;
  facts.tensors = items.size();
  facts.shards = shards.size();
  ShardIndex index;
  progress.Begin("export", items.size(), "tensors");
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string file = shards.size() == 1
                                 ? "model.safetensors"
                                 : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    std::vector<TensorSpec> specs;
    for (const Item* item : shards[s]) specs.push_back(item->spec);
    SafetensorsWriter writer(output.File(file), specs, {{"format", "pt"}});
    for (const Item* item : shards[s]) {
      WriteItem(checkpoint, *item, writer);
      index.Add(item->spec.name, Bytes(item->spec), file);
      progress.Advance(1, item->spec.name);
    }
    facts.file_bytes += writer.file_bytes();
    writer.Commit();
  }
  if (shards.size() > 1) facts.file_bytes += index.Write(output.File("model.safetensors.index.json"));
  for (const fs::path& name : Companions(packed))
    WriteFileAtomically(output.File(name.string()), ReadFile(packed / name));
  WriteJson(output.File("config.json"), PlainConfig(config, dtype));  // last: what makes it a checkpoint
  output.Commit();
  progress.End();
  return facts;
}

}  // namespace mica
