#include "model/export.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "base/matrix.h"
#include "base/output.h"
#include "base/output_directory.h"
#include "base/system.h"
#include "base/units.h"
#include "io/container/safetensors.h"
#include "io/container/shard_index.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/companions.h"
#include "model/family/family.h"
#include "model/packed.h"
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
};

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

uint64_t Bytes(const TensorSpec& spec) {
  uint64_t bytes = DTypeBytes(spec.dtype);
  for (const uint64_t extent : spec.shape) bytes *= extent;
  return bytes;
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
    items.push_back({{tensor.name, IsFloat(tensor.dtype) ? dtype : tensor.dtype, tensor.shape}, "", &tensor});
  }
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return a.spec.name < b.spec.name; });
  return items;
}

void WriteValues(const std::string& name, std::span<const float> values, DType dtype,
                 SafetensorsWriter& writer) {
  if (dtype == DType::kF32) {
    writer.Write(std::as_bytes(values));
    return;
  }
  std::vector<F16> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    halves[i] = ToF16(values[i]);
    if ((halves[i].bits & 0x7FFFu) >= 0x7C00u) {
      Fail("tensor {}: value {} does not fit FP16; export with --dtype fp32", name, values[i]);
    }
  }
  writer.Write(std::as_bytes(std::span(halves)));
}

void WriteItem(const Checkpoint& checkpoint, const Item& item, SafetensorsWriter& writer) {
  if (!item.packed_name.empty()) {
    const StoredMatrix stored = OpenPacked(checkpoint, item.packed_name);
    const size_t slice = std::clamp<uint64_t>(kSliceElements / stored.cols(), 1, stored.rows());
    Matrix<float> weights(slice, stored.cols());
    for (size_t row = 0; row < stored.rows(); row += slice) {
      ThrowIfInterrupted();
      const size_t count = std::min(slice, stored.rows() - row);
      Decode(stored.parts, row, weights.view().Rows(0, count));
      WriteValues(item.spec.name, {weights.data(), count * stored.cols()}, item.spec.dtype, writer);
    }
    stored.Release(checkpoint);
    return;
  }
  const TensorView& tensor = *item.plain;
  VerifyPlain(checkpoint, tensor);
  if (!IsFloat(tensor.dtype) || tensor.dtype == item.spec.dtype) {
    writer.Write(tensor.data);
  } else {
    std::vector<float> values;
    for (uint64_t first = 0; first < tensor.elements(); first += values.size()) {
      ThrowIfInterrupted();
      values.resize(std::min(kSliceElements, tensor.elements() - first));
      ReadFloats(tensor, first, values);
      WriteValues(tensor.name, values, item.spec.dtype, writer);
    }
  }
  checkpoint.Release(tensor);
}

// The configuration without what the packed one has more. The type of the weights stands under one key:
// "dtype" where the original says so alone, else "torch_dtype", which every reader knows.
Json PlainConfig(Json config, DType dtype) {
  config.erase("quantization_config");
  const bool new_key = config.contains("dtype") && !config.contains("torch_dtype");
  config[new_key ? "dtype" : "torch_dtype"] = dtype == DType::kF16 ? "float16" : "float32";
  if (!new_key) config.erase("dtype");
  return config;
}

}  // namespace

ExportFacts ExportPlain(const fs::path& packed, const fs::path& out, const ExportOptions& options,
                        Progress& progress) {
  MICA_CHECK(options.dtype == DType::kF16 || options.dtype == DType::kF32);
  CheckModelDirectory(packed);
  const Json config = ReadJson(packed / "config.json");
  if (!IsPacked(config, (packed / "config.json").string())) {
    Fail(
        "{}: is not a packed checkpoint (config.json has no quantization_config); there is nothing to export",
        packed.string());
  }
  CheckFiles({.inputs = {packed}, .directories = {out}});
  const Checkpoint checkpoint = Checkpoint::Open(packed, true);
  CheckPackedDirectory(checkpoint);
  const std::vector<Item> items = PlanItems(checkpoint, options.dtype);
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
  if (const uint64_t room = FreeDiskBytes(out); room < total + kSlackBytes) {
    Fail("{}: the disk has {} free, the exported checkpoint needs {}", out.string(),
         FormatBytes(static_cast<double>(room)), FormatBytes(static_cast<double>(total + kSlackBytes)));
  }

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
  WriteJson(output.File("config.json"),
            PlainConfig(config, options.dtype));  // last: what makes it a checkpoint
  output.Commit();
  progress.End();
  return facts;
}

}  // namespace mica
