// Any bytes under a name of a GGUF file either are a model, each of whose weights can be read by its role, or
// throw Error.
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/threads.h"
#include "io/container/gguf.h"
#include "model/gguf/layout.h"
#include "model/weights.h"
#include "seeds.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

// One layer of 32 channels and 4 tokens.
void WriteModel(const std::string& path, const Json& changes, GgmlType type) {
  Json json = Json::parse(
      R"({"model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "vocab_size": 4})");
  json.update(changes);
  const GgufModelLayout layout = MakeGgufLayout(
      ParseConfig(json, "seed"), {.name = "seed",
                                  .tokenizer_keys = {{"tokenizer.ggml.model", std::string("llama")},
                                                     {"tokenizer.ggml.bos_token_id", uint32_t{1}}},
                                  .type_of = [&](const TensorPlace&) { return type; }});
  GgufWriter writer(path, layout.Specs(), layout.keys);
  for (const GgufModelTensor& tensor : layout.tensors) {
    if (tensor.later_part()) continue;  // written with the first
    if (tensor.place) {
      writer.Write(std::vector<std::byte>(SpecBytes(tensor.spec), std::byte{0x21}));
    } else {
      writer.Write(std::as_bytes(std::span(tensor.factors)));
    }
  }
  writer.Commit();
}

const std::filesystem::path& Place() {
  static const TemporaryDirectory place(MemoryPlace());
  return place.path();
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  using namespace mica;
  const auto seed = [](const Json& changes, GgmlType type) {
    return MadeBy([&](const std::string& path) { WriteModel(path, changes, type); });
  };
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  WriteSeeds(*argc, *argv,
             {seed({{"attention_bias", true}}, GgmlType::kQ8_0),
              seed({{"model_type", "qwen2"}, {"tie_word_embeddings", true}}, GgmlType::kF16),
              seed({{"rope_theta", 500000.0}, {"rope_scaling", llama3}}, GgmlType::kQ4_0),
              seed({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}, GgmlType::kF32)});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mica;
  SetThreads(1);
  SetLogLevel(ParseLogLevel("error"));
  const std::filesystem::path path = Place() / "m.gguf";
  try {
    WriteFileAtomically(path, {reinterpret_cast<const char*>(data), size});
    const ModelWeights weights = ModelWeights::Open(path);
    const ModelConfig& config = weights.config();
    for (size_t layer = 0; layer < config.layers; ++layer) {
      weights.Norm(layer, NormKind::kAttentionInput);
      for (const LinearKind kind : kLinearKinds) {
        weights.Linear(layer, kind);
        weights.Bias(layer, kind);
      }
    }
    const std::vector<int32_t> ids = {0, static_cast<int32_t>(config.vocab - 1)};
    Matrix<float> rows(ids.size(), config.hidden);
    weights.Embed(ids, rows);
    weights.HeadOn(Device::Cpu(), 0, config.vocab, DType::kF32);
  } catch (const Error&) {
  }
  return 0;
}
