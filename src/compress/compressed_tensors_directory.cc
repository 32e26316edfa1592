#include "compress/compressed_tensors_directory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/system.h"
#include "compress/provenance.h"
#include "compress/work_directory.h"
#include "io/container/checkpoint.h"
#include "io/container/safetensors.h"
#include "io/container/shard_index.h"
#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/compressed_tensors/quantization_config.h"
#include "model/export.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kShardBytes = 5'000'000'000;  // of tensors in a file at most, unless one is larger

// What a linear layer has, after its name.
const std::string kFusedTensors[] = {".weight_packed", ".weight_scale", ".weight_shape", ".bias"};

using Metadata = std::map<std::string, std::string>;
using Matrices = std::vector<std::pair<std::string, CompressedTensorsFacts>>;

Metadata MetadataOf(const CompressionRecord& record) {
  Metadata metadata = {{"format", "pt"}};  // transformers asks for it
  for (const auto& [key, value] : ProvenanceOf(record)) metadata[key] = value;
  return metadata;
}

// A tensor of a shard.
struct Kept {
  const Checkpoint* shard;
  const TensorView* tensor;
};

// A tensor that is written: its own bytes, or those of several one behind the other.
struct Written {
  TensorSpec spec;
  std::vector<size_t> parts;  // places of tensors that are kept
};

bool IsShape(const std::string& tensor) {
  return tensor.ends_with(std::string(".") + PartName(PartKind::kWeightShape));
}

// What becomes of tensors that are kept: those of linear layers that the family stores as one matrix are its
// rows, part by part, in the place of the first.
std::vector<Written> WrittenOf(const ModelConfig& config, const std::vector<TensorSpec>& kept) {
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < kept.size(); ++i) places[kept[i].name] = i;
  std::map<size_t, Written> first_parts;
  std::vector<bool> is_part(kept.size(), false);
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const FusedLinears& fused : config.family->fused) {
      for (const std::string& of : kFusedTensors) {
        Written whole{{LayerName(*config.family, layer, fused.part) + of, DType::kU8, {}}, {}};
        for (const LinearKind kind : fused.kinds) {
          const auto place = places.find(LinearTensorName(*config.family, layer, kind) + of);
          if (place == places.end()) continue;  // there is no bias
          const TensorSpec& spec = kept[place->second];
          if (whole.parts.empty()) {
            whole.spec.dtype = spec.dtype;
            whole.spec.shape = spec.shape;
          } else if (!IsShape(of)) {
            whole.spec.shape[0] += spec.shape[0];
          }
          whole.parts.push_back(place->second);
          is_part[place->second] = true;
        }
        if (whole.parts.empty()) continue;
        MICA_CHECK(whole.parts.size() == fused.kinds.size());
        const size_t first = whole.parts.front();
        first_parts.emplace(first, std::move(whole));
      }
    }
  }
  std::vector<Written> written;
  for (size_t i = 0; i < kept.size(); ++i) {
    const auto first = first_parts.find(i);
    if (first != first_parts.end()) {
      written.push_back(std::move(first->second));
    } else if (!is_part[i]) {
      written.push_back({kept[i], {i}});
    }
  }
  return written;
}

// Rows and columns of the matrix that is written.
std::array<uint64_t, 2> ShapeOf(const Written& shape, std::span<const Kept> kept) {
  std::array<uint64_t, 2> sum = {};
  for (const size_t part : shape.parts) {
    std::array<uint64_t, 2> extents;
    const std::span<const std::byte> data = kept[part].tensor->data;
    MICA_CHECK(data.size() == sizeof(extents));
    std::memcpy(extents.data(), data.data(), sizeof(extents));
    sum = {sum[0] + extents[0], extents[1]};
  }
  return sum;
}

// The same of the modules that config.json names, all parts of which are stored alike.
Matrices FusedMatrices(const ModelConfig& config, Matrices matrices) {
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const FusedLinears& fused : config.family->fused) {
      bool named = false;
      for (const LinearKind kind : fused.kinds) {
        const auto part = std::ranges::find(matrices, LinearTensorName(*config.family, layer, kind),
                                            &Matrices::value_type::first);
        if (part == matrices.end()) continue;
        if (named) {
          matrices.erase(part);
        } else {
          part->first = LayerName(*config.family, layer, fused.part);
          named = true;
        }
      }
    }
  }
  return matrices;
}

std::vector<TensorSpec> SpecsOf(const std::vector<Written>& written) {
  std::vector<TensorSpec> specs;
  for (const Written& tensor : written) specs.push_back(tensor.spec);
  return specs;
}

// Which files there are, each with the places of its tensors in `specs`. Tensors stay together in their
// order; within a file those of larger elements come first, so that each begins at a multiple of its element.
std::vector<std::vector<size_t>> FilesOf(const std::vector<TensorSpec>& specs) {
  std::vector<std::vector<size_t>> files;
  uint64_t in_file = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    const uint64_t bytes = SpecBytes(specs[i]);
    if (files.empty() || in_file + bytes > kShardBytes) {
      files.emplace_back();
      in_file = 0;
    }
    files.back().push_back(i);
    in_file += bytes;
  }
  for (std::vector<size_t>& file : files) {
    std::ranges::stable_sort(file, std::ranges::greater(),
                             [&](size_t i) { return DTypeBytes(specs[i].dtype); });
  }
  return files;
}

// All that is written, every matrix of a decoder layer in the widest of the widths.
std::vector<TensorSpec> WidestSpecs(const ModelWeights& weights, const CompressionSettings& settings) {
  const ModelConfig& config = weights.config();
  const int bits = std::ranges::max(settings.compressed_tensors.bits);
  const size_t group = settings.fixed.group_size;
  std::vector<TensorSpec> specs;
  for (const TensorView& tensor : weights.checkpoint().tensors()) {
    const TensorPlace place = PlaceOf(*config.family, tensor.name);
    switch (TreatmentOf(place.role, config.tied_head)) {
      case Treatment::kLeftOut:
        break;
      case Treatment::kCopied:
        specs.push_back({tensor.name, tensor.dtype, tensor.shape});
        break;
      default:
        if (place.role != TensorRole::kLinear) {  // embedding and head, in 16 bits
          specs.push_back(
              {tensor.name, tensor.dtype == DType::kBF16 ? DType::kBF16 : DType::kF16, tensor.shape});
          break;
        }
        const std::string name = tensor.name.substr(0, tensor.name.size() - std::string(".weight").size());
        const uint64_t rows = tensor.shape[0], cols = tensor.shape[1];
        const auto part = [&](PartKind kind) { return name + "." + PartName(kind); };
        specs.push_back(
            {part(PartKind::kWeightPacked), DType::kI32, {rows, WordsOf(cols, bits, CodePacking::kDense)}});
        specs.push_back({part(PartKind::kWeightScale), DType::kF16, {rows, cols / group}});
        specs.push_back({part(PartKind::kWeightShape), DType::kI64, {2}});
    }
  }
  return SpecsOf(WrittenOf(config, specs));
}

bool IsOfMatrix(const std::string& tensor) {
  for (const PartKind kind : {PartKind::kWeightPacked, PartKind::kWeightScale, PartKind::kWeightShape}) {
    if (tensor.ends_with(std::string(".") + PartName(kind))) return true;
  }
  return false;
}

Json WeightsOf(const CompressedTensorsFacts& facts) {
  return {{"num_bits", facts.bits},    {"type", "int"},       {"symmetric", true}, {"strategy", "group"},
          {"group_size", facts.group}, {"actorder", nullptr}, {"dynamic", false}};
}

// A group a width. With one width all linear layers are its targets; else each module by its name, since
// vLLM would take the class before the parts of layers that it fuses. The head is ignored also where it is the
// embedding: to transformers it is a linear layer of its own even then.
Json QuantizationConfig(const ModelConfig& config, const Matrices& matrices) {
  std::map<int, Json> by_width;
  for (const auto& [name, facts] : matrices) {
    const auto [group, is_new] = by_width.emplace(facts.bits, Json());
    if (is_new) {
      group->second = {{"targets", Json::array()},
                       {"weights", WeightsOf(facts)},
                       {"input_activations", nullptr},
                       {"output_activations", nullptr}};
    }
    group->second["targets"].push_back(name);
  }
  if (by_width.size() == 1) by_width.begin()->second["targets"] = Json::array({"Linear"});
  Json groups = Json::object();
  for (auto& [bits, group] : by_width) groups[fmt::format("group_{}", groups.size())] = std::move(group);
  return {{"quant_method", kCompressedTensorsMethod},
          {"format", kPackQuantized},
          {"quantization_status", "compressed"},
          {"ignore", Json::array({config.family->names.head})},
          {"config_groups", groups}};
}

}  // namespace

uint64_t CompressedTensorsBytesBesides(const ModelWeights& weights, const CompressionSettings& settings,
                                       const CompressionRecord& record) {
  std::vector<TensorSpec> specs = WidestSpecs(weights, settings);
  const Metadata metadata = MetadataOf(record);
  // Fewer bits never make more files, nor any offset longer than it is where all tensors stand in one.
  const size_t files = FilesOf(specs).size();
  uint64_t bytes = files * (SafetensorsHeaderBytes({}, metadata) + 64);
  if (files > 1) {
    bytes += kIndexFrameBytes;
    for (const TensorSpec& spec : specs) bytes += IndexEntryBytes(spec.name);
  }
  std::ranges::stable_sort(specs, std::ranges::greater(),
                           [](const TensorSpec& spec) { return DTypeBytes(spec.dtype); });
  bytes += SafetensorsHeaderBytes(specs, {});
  for (const TensorSpec& spec : specs) {
    if (!IsOfMatrix(spec.name)) bytes += SpecBytes(spec);
  }
  return bytes;
}

void WriteCompressedTensors(const ModelWeights& weights, const CompressionSettings& settings,
                            std::span<const fs::path> paths, const CompressionRecord& record,
                            const fs::path& out) {
  const ModelConfig& config = weights.config();
  std::vector<Checkpoint> shards;
  for (const fs::path& path : paths) shards.push_back(Checkpoint::Open(path));
  std::vector<Kept> kept;
  std::vector<TensorSpec> kept_specs;
  Matrices matrices;
  for (const Checkpoint& shard : shards) {
    for (const std::string& name : PackedNames(shard)) {
      // Parts are compared with their checksums.
      const StoredMatrix matrix = OpenPacked(shard, name);
      matrices.emplace_back(name, std::get<CompressedTensorsParts>(matrix.parts));
    }
    for (const TensorView& tensor : shard.tensors()) {
      VerifyPlain(shard, tensor);
      kept.push_back({&shard, &tensor});
      kept_specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    }
  }
  const std::vector<Written> written = WrittenOf(config, kept_specs);
  const std::vector<TensorSpec> specs = SpecsOf(written);
  const Metadata metadata = MetadataOf(record);
  const std::vector<std::vector<size_t>> files = FilesOf(specs);
  ShardIndex index;
  for (size_t f = 0; f < files.size(); ++f) {
    const std::string name = files.size() == 1
                                 ? "model.safetensors"
                                 : fmt::format("model-{:05}-of-{:05}.safetensors", f + 1, files.size());
    std::vector<TensorSpec> of_file;
    for (const size_t i : files[f]) {
      of_file.push_back(specs[i]);
      index.Add(specs[i].name, SpecBytes(specs[i]), name);
    }
    SafetensorsWriter writer(out / name, of_file, metadata);
    for (const size_t i : files[f]) {
      ThrowIfInterrupted();
      if (IsShape(specs[i].name)) {
        const std::array<uint64_t, 2> extents = ShapeOf(written[i], kept);
        writer.Write(std::as_bytes(std::span(extents)));
        continue;
      }
      for (const size_t part : written[i].parts) {
        writer.Write(kept[part].tensor->data);
        kept[part].shard->Release(*kept[part].tensor);
      }
    }
    writer.Commit();
  }
  if (files.size() > 1) index.Write(out / "model.safetensors.index.json");

  const bool bf16 = settings.compressed_tensors.scale_type == ScaleType::kBF16;
  Json json = config.json;
  SetWeightType(json, bf16 ? DType::kBF16 : DType::kF16);
  json["quantization_config"] = QuantizationConfig(config, FusedMatrices(config, matrices));
  WriteJson(out / "config.json", json);
}

}  // namespace mica
