#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "io/packed/packed_checkpoint.h"
#include "model/sizes.h"
#include "model/unread_tensors.h"
#include "model/weights.h"
#include "record/compression.h"
#include "record/options.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

struct InspectOptions {
  fs::path model;
  Json given = Json::object();
};

struct DTypeTotal {
  size_t tensors = 0;
  uint64_t elements = 0;
  uint64_t bytes = 0;
};

// Where the bits of a model in another program's format are (GGUF, compressed-tensors).
struct FormatSizes {
  uint64_t decoder_weights = 0, decoder_bits = 0;  // of the matrices of all layers
  std::string embedding, head;                     // types; no head where it is the embedding
};

// What the command shows. A single weight file has no config unless it is a GGUF one; a plain checkpoint has
// no packed sizes.
struct Inspection {
  Checkpoint checkpoint;
  std::optional<ModelConfig> config;
  std::optional<PackedSizes> packed;
  std::optional<FormatSizes> format;
  std::vector<std::string> not_read;       // names of tensors that the model does not use
  std::optional<fs::path> record;          // of the compression that it ended in, beside a GGUF file
  std::vector<const TensorView*> tensors;  // layer 2 before layer 10
  std::map<std::string, DTypeTotal> dtypes;
  uint64_t parameters = 0;
  uint64_t tensor_bytes = 0;
};

// The name with its numbers filled up, so that order by text is order by number.
std::string SortKey(const std::string& name) {
  constexpr size_t kDigits = 8;
  std::string key, digits;
  for (const char c : name + '\0') {
    if (c >= '0' && c <= '9') {
      digits += c;
      continue;
    }
    if (!digits.empty()) key += std::string(kDigits - std::min(kDigits, digits.size()), '0') + digits;
    digits.clear();
    key += c;
  }
  return key;
}

FormatSizes SizesOf(const ModelWeights& weights) {
  FormatSizes sizes;
  for (const TensorView& tensor : weights.checkpoint().tensors()) {
    const TensorRole role = PlaceOf(*weights.config().family, tensor.name).role;
    if (role == TensorRole::kEmbedding) sizes.embedding = TypeName(tensor);
    if (role == TensorRole::kHead) sizes.head = TypeName(tensor);
    if (role != TensorRole::kLinear) continue;
    sizes.decoder_weights += tensor.elements();
    sizes.decoder_bits += 8 * tensor.stored_bytes();
  }
  return sizes;
}

Inspection Inspect(const fs::path& path) {
  Inspection result;
  if (fs::is_directory(path) || IsGgufModel(path)) {
    const ModelWeights weights = ModelWeights::Open(path);
    result.config = weights.config();
    if (weights.packed()) result.packed = MeasurePacked(path, *weights.config().family);
    const Checkpoint& checkpoint = weights.checkpoint();
    if (checkpoint.gguf() != nullptr || weights.compressed_tensors()) result.format = SizesOf(weights);
    if (checkpoint.gguf() != nullptr) {
      const fs::path record = RecordOf(checkpoint.directory() / checkpoint.files().front().name);
      if (fs::exists(record)) result.record = record;
    }
    for (const TensorView& tensor : checkpoint.tensors()) {
      if (!weights.IsRead(tensor.name)) result.not_read.push_back(tensor.name);
    }
  }
  result.checkpoint = Checkpoint::Open(path, result.packed.has_value());
  uint64_t elements = 0;
  for (const TensorView& tensor : result.checkpoint.tensors()) {
    DTypeTotal& total = result.dtypes[TypeName(tensor)];
    ++total.tensors;
    total.elements += tensor.elements();
    total.bytes += tensor.data.size();
    elements += tensor.elements();
    result.tensor_bytes += tensor.data.size();
    result.tensors.push_back(&tensor);
  }
  std::stable_sort(
      result.tensors.begin(), result.tensors.end(),
      [](const TensorView* a, const TensorView* b) { return SortKey(a->name) < SortKey(b->name); });
  result.parameters = result.config ? ParameterCount(*result.config) : elements;
  return result;
}

double BitsPerWeight(uint64_t bits, uint64_t weights) {
  return weights == 0 ? 0.0 : static_cast<double>(bits) / static_cast<double>(weights);
}

Json ConfigJson(const ModelConfig& config) {
  return {{"architecture", config.architecture},
          {"model_type", config.model_type},
          {"layers", config.layers},
          {"hidden", config.hidden},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"ffn", config.ffn},
          {"vocab", config.vocab},
          {"max_positions", config.max_positions},
          {"rope_theta", config.ropes.front().theta},
          {"rope_scaling", RopeScalingName(config.ropes.front().scaling)},
          {"sliding_window", config.ShortestSliding()},
          {"tied_head", config.tied_head},
          {"attention_bias", config.attention_bias}};
}

Json ToJson(const Inspection& inspection, const fs::path& path) {
  const Checkpoint& checkpoint = inspection.checkpoint;
  Json json = {{"model", path.string()}};
  if (inspection.config) json["config"] = ConfigJson(*inspection.config);
  json["layout"] = checkpoint.layout();
  json["packed"] = inspection.packed.has_value();
  json["parameters"] = inspection.parameters;
  json["file_bytes"] = checkpoint.file_bytes();
  json["tensor_bytes"] = inspection.tensor_bytes;
  json["bits_per_weight"] = BitsPerWeight(8 * inspection.tensor_bytes, inspection.parameters);
  if (inspection.packed) {
    const PackedSizes& packed = *inspection.packed;
    json["compressed_matrices"] = {
        {"weights", packed.compressed_weights},
        {"bits", packed.compressed_matrix_bits},
        {"bits_per_weight", BitsPerWeight(packed.compressed_matrix_bits, packed.compressed_weights)}};
    json["directory_bytes"] = packed.total_bytes;
    json["bytes"] = packed.bytes;
  }
  if (inspection.format) {
    const FormatSizes& sizes = *inspection.format;
    json["decoder_matrices"] = {
        {"weights", sizes.decoder_weights},
        {"bits", sizes.decoder_bits},
        {"bits_per_weight", BitsPerWeight(sizes.decoder_bits, sizes.decoder_weights)}};
    json["embedding"] = sizes.embedding;
    json["head"] = sizes.head.empty() ? Json() : Json(sizes.head);
  }
  if (!inspection.not_read.empty()) json["not_read"] = inspection.not_read;
  if (inspection.record) json["record"] = inspection.record->string();
  for (const auto& [name, total] : inspection.dtypes) {
    json["dtypes"][name] = {{"tensors", total.tensors}, {"elements", total.elements}, {"bytes", total.bytes}};
  }
  json["tensors"] = Json::array();
  for (const TensorView* tensor : inspection.tensors) {
    json["tensors"].push_back({{"name", tensor->name},
                               {"dtype", TypeName(*tensor)},
                               {"shape", tensor->shape},
                               {"bytes", tensor->data.size()},
                               {"file", fs::path(tensor->file).filename().string()}});
  }
  return json;
}

std::string ShapeLine(const ModelConfig& config) {
  const char* attention = config.kv_heads == config.heads ? "MHA" : config.kv_heads == 1 ? "MQA" : "GQA";
  return fmt::format(
      "{} layers, hidden {}, {} heads of {}, {} KV heads ({}), FFN {}, vocabulary {}, {} positions",
      config.layers, config.hidden, config.heads, config.head_dim, config.kv_heads, attention, config.ffn,
      config.vocab, config.max_positions);
}

// "theta 1000000, scaling none", and which channels and layers where not all.
std::string RopeLine(const ModelConfig& config, size_t index) {
  const RopeConfig& rope = config.ropes[index];
  std::string text = fmt::format("theta {:g}, scaling {}", rope.theta, RopeScalingName(rope.scaling));
  if (rope.channels != config.head_dim) text += fmt::format(", {} of {} channels", rope.channels, config.head_dim);
  const auto layers = std::ranges::count_if(
      config.traits, [&](const LayerTraits& layer) { return layer.rope == std::optional(index); });
  if (static_cast<size_t>(layers) != config.layers) text += fmt::format(", {} of {} layers", layers, config.layers);
  return text;
}

std::string SlidingLine(const ModelConfig& config) {
  const auto layers =
      std::ranges::count_if(config.traits, [](const LayerTraits& layer) { return layer.sliding != 0; });
  return fmt::format("{} tokens in {} of {} layers", config.ShortestSliding(), layers, config.layers);
}

std::string ToText(const Inspection& inspection, const fs::path& path) {
  const Checkpoint& checkpoint = inspection.checkpoint;
  std::string text = Printable(path.string(), std::string::npos) + "\n";
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<16}{}\n", label, Printable(value, std::string::npos));
  };
  if (inspection.config) {
    const ModelConfig& config = *inspection.config;
    line("architecture", fmt::format("{} ({})", config.architecture, config.model_type));
    line("shape", ShapeLine(config));
    line("output head", config.tied_head ? "tied to the embedding" : "own matrix");
    for (size_t i = 0; i < config.ropes.size(); ++i) line(i == 0 ? "rope" : "", RopeLine(config, i));
    if (config.ShortestSliding() != 0) line("sliding window", SlidingLine(config));
    if (config.attention_bias) line("biases", config.output_bias ? "on q, k, v and o" : "on q, k and v");
  }
  line("parameters", std::to_string(inspection.parameters));
  line("weight files",
       fmt::format("{}, {} ({} bytes)", checkpoint.layout(),
                   FormatBytes(static_cast<double>(checkpoint.file_bytes())), checkpoint.file_bytes()));
  if (!inspection.not_read.empty())
    line("not read", fmt::format("{} tensors: {}", inspection.not_read.size(), ListNames(inspection.not_read)));
  if (inspection.record) line("compressed as", inspection.record->string() + " says");
  line("bits per weight", fmt::format("{:.3f} (all tensors)",
                                      BitsPerWeight(8 * inspection.tensor_bytes, inspection.parameters)));
  if (inspection.format) {
    const FormatSizes& sizes = *inspection.format;
    line("", fmt::format("{:.3f} ({} weights of decoder matrices)",
                         BitsPerWeight(sizes.decoder_bits, sizes.decoder_weights), sizes.decoder_weights));
    line("ends", sizes.head.empty() ? fmt::format("embedding {}, which is the head as well", sizes.embedding)
                                    : fmt::format("embedding {}, head {}", sizes.embedding, sizes.head));
  }
  if (inspection.packed) {
    const PackedSizes& packed = *inspection.packed;
    line("", fmt::format("{:.3f} ({} weights of compressed matrices)",
                         BitsPerWeight(packed.compressed_matrix_bits, packed.compressed_weights),
                         packed.compressed_weights));
    std::vector<std::vector<std::string>> rows = {{"bytes for", "bytes", "share"}};
    for (const auto& [kind, bytes] : packed.bytes) {
      if (bytes == 0) continue;
      rows.push_back({kind, std::to_string(bytes),
                      fmt::format("{:.2f} %", 100.0 * static_cast<double>(bytes) /
                                                  static_cast<double>(packed.total_bytes))});
    }
    rows.push_back({"whole directory", std::to_string(packed.total_bytes), "100.00 %"});
    text += "\n" + AlignedTable(rows);
  }
  std::vector<std::vector<std::string>> dtypes = {{"dtype", "tensors", "elements", "bytes"}};
  for (const auto& [name, total] : inspection.dtypes) {
    dtypes.push_back(
        {name, std::to_string(total.tensors), std::to_string(total.elements), std::to_string(total.bytes)});
  }
  text += "\n" + AlignedTable(dtypes);
  std::vector<std::vector<std::string>> tensors = {{"tensor", "dtype", "shape", "bytes"}};
  for (const TensorView* tensor : inspection.tensors) {
    tensors.push_back(
        {tensor->name, TypeName(*tensor), ShapeText(tensor->shape), std::to_string(tensor->data.size())});
  }
  return text + "\n" + AlignedTable(tensors, 3);
}

void RunInspect(const InspectOptions& options) {
  const Inspection inspection = Inspect(options.model);
  const bool json = ValueOf(options.given, FindOption(InspectionOptionTable(), "json"));
  WriteStdout(json ? JsonText(ToJson(inspection, options.model)) : ToText(inspection, options.model));
}

}  // namespace

Subcommand InspectCommand() {
  auto options = std::make_shared<InspectOptions>();
  return {.name = "inspect",
          .help = "Show architecture, tensors and sizes of a checkpoint, plain or packed, or of a GGUF file",
          .arguments = {{"model", &options->model, "Checkpoint directory or weight file"}},
          .flags = {{InspectionOptionTable(), &options->given}},
          .run = [options] { RunInspect(*options); }};
}

}  // namespace mica
