#include "model/synthesize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "base/output.h"
#include "base/output_directory.h"
#include "base/system.h"
#include "base/threads.h"
#include "base/units.h"
#include "io/container/shard_index.h"
#include "io/container/torch_file.h"
#include "io/text/tokenizer.h"
#include "model/config.h"
#include "model/family/family.h"
#include "model/weights.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr size_t kBlockElements = size_t{1} << 18;          // made by one thread at a time
constexpr size_t kBufferElements = (size_t{64} << 20) / 4;  // 64 MiB of FP32
constexpr uint64_t kSlackBytes = uint64_t{16} << 20;        // headers, index, file system
constexpr double kNormEpsilon = 1e-5;
constexpr const char* kTokenizerFiles[] = {"tokenizer.model", "tokenizer.json", "tokenizer_config.json",
                                           "special_tokens_map.json"};

// A bijection of 64 bits that spreads every input bit over all output bits (SplitMix64; Steele, Lea, Flood
// 2014).
inline uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// The sum of four independent uniform numbers, scaled to unit variance: close to normal, bounded by 3.5, and
// cheap.
inline float NearlyNormal(uint64_t bits) {
  const uint32_t sum = static_cast<uint32_t>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) +
                                             ((bits >> 32) & 0xFFFF) + (bits >> 48));
  constexpr float kMean = 2 * 65535.0f;
  constexpr float kScale = 1.0f / 37837.2f;  // sqrt(4 (2^32 - 1) / 12)
  return (static_cast<float>(sum) - kMean) * kScale;
}

uint64_t KeyOf(uint64_t seed, const std::string& name) {
  uint64_t key = Mix(seed + 0x9E3779B97F4A7C15u);
  for (const char c : name) key = Mix(key ^ static_cast<uint8_t>(c)) + 0x9E3779B97F4A7C15u;
  return key;
}

// How the values of a tensor are drawn: all of them `mean` where deviation is 0.
struct Values {
  uint64_t key = 0;
  float mean = 0.0f, deviation = 0.0f;
};

// Elements [first, first + count) of a tensor into `out`.
void FillElements(const TensorSpec& tensor, const Values& values, uint64_t first, size_t count,
                  std::byte* out) {
  const auto fill = [&](auto convert) {
    using Stored = decltype(convert(0.0f));
    const auto store = [&](size_t i, float value) {
      const Stored stored = convert(value);
      std::memcpy(out + i * sizeof(Stored), &stored, sizeof(Stored));
    };
    if (values.deviation == 0.0f) {
      for (size_t i = 0; i < count; ++i) store(i, values.mean);
      return;
    }
    for (size_t i = 0; i < count; ++i) {
      store(i, values.deviation * NearlyNormal(Mix(values.key + (first + i) * 0x9E3779B97F4A7C15u)));
    }
  };
  switch (tensor.dtype) {
    case DType::kF32:
      return fill([](float value) { return value; });
    case DType::kF16:
      return fill([](float value) { return ToF16(value); });
    case DType::kBF16:
      return fill([](float value) { return ToBF16(value); });
    default:
      MICA_CHECK(false);
  }
}

// Of the random values of a tensor; norms have none: they multiply by 1.
float Deviation(const TensorSpec& tensor, const TensorPlace& place, size_t layers) {
  if (place.role == TensorRole::kBias) return 0.02f;
  const double cols = static_cast<double>(tensor.shape.back());
  const bool writes_residual =
      place.role == TensorRole::kLinear && (place.kind == LinearKind::kO || place.kind == LinearKind::kDown);
  return static_cast<float>(1.0 /
                            std::sqrt(cols * (writes_residual ? 2.0 * static_cast<double>(layers) : 1.0)));
}

bool IsNorm(TensorRole role) { return role == TensorRole::kFinalNorm || role == TensorRole::kNorm; }

size_t HeadDim(const RandomCheckpointSpec& spec) {
  return spec.head_dim != 0 ? spec.head_dim : spec.hidden / spec.heads;
}

const ModelType& TypeOf(const RandomCheckpointSpec& spec) {
  if (const ModelType* type = FindModelType(spec.model_type)) return *type;
  Fail("--architecture is '{}', expected {}", spec.model_type, JoinNames(ModelTypes(), "or"));
}

void CheckShape(const RandomCheckpointSpec& spec) {
  const auto bounded = [](const char* flag, uint64_t value, uint64_t limit) {
    if (value < 1 || value > limit) Fail("--{} is {}, expected 1 to {}", flag, value, limit);
  };
  bounded("layers", spec.layers, 4096);
  bounded("hidden", spec.hidden, 1 << 20);
  bounded("heads", spec.heads, 1 << 14);
  bounded("kv-heads", spec.kv_heads, 1 << 14);
  bounded("ffn", spec.ffn, 1 << 20);
  bounded("vocab", spec.vocab, 1 << 24);
  bounded("max-positions", spec.max_positions, uint64_t{1} << 30);
  if (spec.heads % spec.kv_heads != 0)
    Fail("--kv-heads is {}, expected a divisor of --heads, {}", spec.kv_heads, spec.heads);
  if (spec.head_dim == 0 && spec.hidden % spec.heads != 0) {
    Fail("--heads is {}, expected a divisor of --hidden, {}, unless --head-dim is given", spec.heads,
         spec.hidden);
  }
  if (HeadDim(spec) % 2 != 0 || HeadDim(spec) > 4096) {
    Fail("the head dimension is {}, expected an even number up to 4096; set --head-dim", HeadDim(spec));
  }
  if (!(spec.rope_theta > 0) || !std::isfinite(spec.rope_theta))
    Fail("--rope-theta is {}, expected a positive number", spec.rope_theta);
  if (spec.dtype != DType::kF32 && spec.dtype != DType::kF16 && spec.dtype != DType::kBF16) {
    Fail("--dtype is {}, expected fp16, bf16 or fp32", DTypeName(spec.dtype));
  }
  if (spec.attention_bias && TypeOf(spec).biases != BiasRule::kConfig) {
    std::vector<const ModelType*> types = ModelTypes();
    std::erase_if(types, [](const ModelType* type) { return type->biases != BiasRule::kConfig; });
    Fail("--attention-bias belongs to the architectures {} only", JoinNames(types, "or"));
  }
}

Json Config(const RandomCheckpointSpec& spec) {
  const ModelType& type = TypeOf(spec);
  const ConfigKeys& keys = type.family->keys;
  const char* dtype = spec.dtype == DType::kF32   ? "float32"
                      : spec.dtype == DType::kF16 ? "float16"
                                                  : "bfloat16";
  Json config = {{"architectures", {type.architecture}},
                 {"model_type", type.name},
                 {keys.activation, type.family->activation},
                 {keys.hidden, spec.hidden},
                 {keys.ffn, spec.ffn},
                 {keys.layers, spec.layers},
                 {keys.heads, spec.heads},
                 {keys.kv_heads, spec.kv_heads},
                 {keys.head_dim, HeadDim(spec)},
                 {keys.max_positions, spec.max_positions},
                 {keys.norm_epsilon, kNormEpsilon},
                 {keys.rope_theta, spec.rope_theta},
                 {keys.vocab, spec.vocab},
                 {"tie_word_embeddings", spec.tied.value_or(type.tied_head)},
                 {"bos_token_id", 1},
                 {"eos_token_id", 2},
                 {"torch_dtype", dtype}};
  if (type.biases == BiasRule::kConfig) config[keys.attention_bias] = spec.attention_bias;
  config.update(Json::parse(type.example));
  return config;
}

// Tensors of one file.
using Shard = std::vector<TensorSpec>;

std::vector<Shard> CutShards(const std::vector<TensorSpec>& tensors, uint64_t shard_bytes) {
  std::vector<Shard> shards(1);
  uint64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) {
    if (shard_bytes != 0 && !shards.back().empty() && bytes + SpecBytes(tensor) > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += SpecBytes(tensor);
    shards.back().push_back(tensor);
  }
  return shards;
}

// Progress in megabytes, fed in bytes.
class MegabyteProgress {
 public:
  MegabyteProgress(Progress& progress, uint64_t total_bytes) : progress_(progress) {
    progress_.Begin("writing", total_bytes / kMegabyte, "MB");
  }
  void Advance(uint64_t bytes, const std::string& detail) {
    const uint64_t before = bytes_ / kMegabyte;
    bytes_ += bytes;
    progress_.Advance(bytes_ / kMegabyte - before, detail);
  }
  void End() { progress_.End(); }

 private:
  static constexpr uint64_t kMegabyte = 1'000'000;
  Progress& progress_;
  uint64_t bytes_ = 0;
};

// Streams the tensors of one file through a buffer of bounded size; blocks of it are filled in parallel.
template <typename Writer>
uint64_t WriteShard(Writer& writer, const Shard& shard, const RandomCheckpointSpec& spec,
                    MegabyteProgress& progress) {
  const Family* const family = TypeOf(spec).family;
  std::vector<std::byte> buffer(kBufferElements * DTypeBytes(spec.dtype));
  for (const TensorSpec& tensor : shard) {
    const TensorPlace place = PlaceOf(*family, tensor.name);
    Values values;
    if (IsNorm(place.role)) {
      values.mean = 1.0f - family->norm_offset;
    } else {
      values = {KeyOf(spec.seed, tensor.name), 0.0f, Deviation(tensor, place, spec.layers)};
    }
    const size_t element_bytes = DTypeBytes(tensor.dtype);
    const uint64_t elements = SpecBytes(tensor) / element_bytes;
    for (uint64_t first = 0; first < elements; first += kBufferElements) {
      ThrowIfInterrupted();
      const size_t count = std::min<uint64_t>(kBufferElements, elements - first);
      ParallelFor((count + kBlockElements - 1) / kBlockElements, [&](size_t block) {
        const size_t begin = block * kBlockElements;
        const size_t block_count = std::min(kBlockElements, count - begin);
        FillElements(tensor, values, first + begin, block_count, buffer.data() + begin * element_bytes);
      });
      writer.Write(std::span(buffer.data(), count * element_bytes));
      progress.Advance(count * element_bytes, tensor.name);
    }
  }
  writer.Commit();
  return writer.file_bytes();
}

void CopyTokenizer(const RandomCheckpointSpec& spec, OutputDirectory& output) {
  const Tokenizer tokenizer = Tokenizer::Open(spec.tokenizer);
  if (static_cast<size_t>(tokenizer.vocab_size()) > spec.vocab) {
    Fail("{}: has {} pieces, more than the vocabulary of the model, {}; raise --vocab",
         spec.tokenizer.string(), tokenizer.vocab_size(), spec.vocab);
  }
  if (!fs::is_directory(spec.tokenizer)) {
    // Under the name that says what it is.
    const bool json = spec.tokenizer.extension() == ".json";
    WriteFileAtomically(output.File(json ? "tokenizer.json" : kTokenizerFiles[0]), ReadFile(spec.tokenizer));
    return;
  }
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(spec.tokenizer / name))
      WriteFileAtomically(output.File(name), ReadFile(spec.tokenizer / name));
  }
}

}  // namespace

void ApplyPreset(const std::string& name, RandomCheckpointSpec& spec) {
  struct Preset {
    const char* name;
    size_t layers, hidden, heads, kv_heads, ffn, vocab, max_positions;
  };
  constexpr Preset kPresets[] = {
      {"tiny", 2, 64, 4, 2, 160, 512, 2048},
      {"llama-7b", 32, 4096, 32, 32, 11008, 32000, 4096},
      {"vicuna-13b", 40, 5120, 40, 40, 13824, 32000, 4096},
  };
  for (const Preset& preset : kPresets) {
    if (name != preset.name) continue;
    spec.layers = preset.layers;
    spec.hidden = preset.hidden;
    spec.heads = preset.heads;
    spec.kv_heads = preset.kv_heads;
    spec.ffn = preset.ffn;
    spec.vocab = preset.vocab;
    spec.max_positions = preset.max_positions;
    return;
  }
  Fail("--preset is '{}', expected tiny, llama-7b or vicuna-13b", name);
}

std::vector<TensorSpec> RandomTensors(const RandomCheckpointSpec& spec) {
  CheckShape(spec);
  const ModelConfig config = ParseConfig(Config(spec), "random checkpoint");
  const Family& family = *config.family;
  std::vector<TensorSpec> tensors;
  const auto add = [&](std::string name, std::vector<uint64_t> shape) {
    tensors.push_back({std::move(name), spec.dtype, std::move(shape)});
  };
  add(WeightName(family.names.embedding), {spec.vocab, spec.hidden});
  for (size_t layer = 0; layer < spec.layers; ++layer) {
    std::set<LinearKind> in_fused;
    for (const FusedLinears& fused : family.fused) {
      uint64_t rows = 0;
      for (const LinearKind kind : fused.kinds) {
        rows += LinearShape(config, kind).rows;
        in_fused.insert(kind);
      }
      add(WeightName(LayerName(family, layer, fused.part)),
          {rows, LinearShape(config, fused.kinds.front()).cols});
    }
    for (const LinearKind kind : kLinearKinds) {
      if (in_fused.contains(kind)) continue;
      const std::string name = LinearTensorName(family, layer, kind);
      const auto [rows, cols] = LinearShape(config, kind);
      add(WeightName(name), {rows, cols});
      if (HasBias(config, kind)) add(BiasName(name), {rows});
    }
    for (const NormKind norm : kNormKinds) {
      if (config.Has(norm)) add(WeightName(NormTensorName(family.names, layer, norm)), {config.NormWidth(norm)});
    }
  }
  add(WeightName(family.names.final_norm), {spec.hidden});
  if (!config.tied_head) add(WeightName(family.names.head), {spec.vocab, spec.hidden});
  return tensors;
}

RandomCheckpointFacts WriteRandomCheckpoint(const RandomCheckpointSpec& spec, const fs::path& directory,
                                            Progress& progress) {
  const std::vector<TensorSpec> tensors = RandomTensors(spec);
  RandomCheckpointFacts facts;
  uint64_t data_bytes = 0;
  for (const TensorSpec& tensor : tensors) data_bytes += SpecBytes(tensor);
  facts.parameters = data_bytes / DTypeBytes(spec.dtype);

  if (!spec.tokenizer.empty()) CheckFiles({.inputs = {spec.tokenizer}, .directories = {directory}});
  if (const uint64_t room = FreeDiskBytes(directory); room < data_bytes + kSlackBytes) {
    Fail("{}: the checkpoint needs {} of disk space, but {} are free", directory.string(),
         FormatBytes(static_cast<double>(data_bytes + kSlackBytes)), FormatBytes(static_cast<double>(room)));
  }
  OutputDirectory output(directory);
  if (!spec.tokenizer.empty()) CopyTokenizer(spec, output);

  const bool torch = spec.format == CheckpointFormat::kTorch;
  const std::string stem = torch ? "pytorch_model" : "model", extension = torch ? ".bin" : ".safetensors";
  const std::vector<Shard> shards = CutShards(tensors, spec.shard_bytes);
  ShardIndex index;
  MegabyteProgress megabytes(progress, data_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1
                                 ? stem + extension
                                 : fmt::format("{}-{:05}-of-{:05}{}", stem, i + 1, shards.size(), extension);
    for (const TensorSpec& tensor : shards[i]) index.Add(tensor.name, SpecBytes(tensor), name);
    const fs::path path = output.File(name);
    if (torch) {
      TorchWriter writer(path, shards[i]);
      facts.file_bytes += WriteShard(writer, shards[i], spec, megabytes);
    } else {
      SafetensorsWriter writer(path, shards[i], {{"format", "pt"}});
      facts.file_bytes += WriteShard(writer, shards[i], spec, megabytes);
    }
  }
  megabytes.End();
  if (shards.size() > 1) facts.file_bytes += index.Write(output.File(stem + extension + ".index.json"));
  WriteJson(output.File("config.json"), Config(spec));
  facts.shards = shards.size();
  output.Commit();
  return facts;
}

}  // namespace mica
