// Model families: decoders with LLaMA's mathematics (norm, attention, norm, gated MLP) that spell their
// config.json and their tensors alike. One file declares a family (llama.cc); family.cc holds the table of
// them.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// The linear layers of one decoder layer, in the order in which they are computed.
enum class LinearKind { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr std::array kLinearKinds = {LinearKind::kQ,   LinearKind::kK,    LinearKind::kV,
                                            LinearKind::kO,   LinearKind::kGate, LinearKind::kUp,
                                            LinearKind::kDown};
// The key of reports and progress, "self_attn.q_proj", whatever a family calls the tensor.
const char* LinearName(LinearKind kind);

struct Family;

// Which linear layers have biases: none; q, k and v; what config.json says of attention (q, k, v, o) and MLP.
enum class BiasRule { kNone, kQkv, kConfig };
// Whether attention slides: never; as sliding_window says (null: not); only where use_sliding_window is true.
enum class SlidingRule { kNever, kWindow, kFlag };

// One model_type of config.json, and what transformers assumes for keys that its config.json leaves out.
struct ModelType {
  const Family* family;
  std::string_view name;          // "llama"
  std::string_view architecture;  // "LlamaForCausalLM"
  std::string_view also;          // for messages: "also Vicuna and Yi", or empty
  std::string_view note;          // for the help: "biases on q, k, v", or empty
  size_t max_positions;
  SlidingRule sliding;
  size_t sliding_window;  // unless sliding is kNever
  BiasRule biases;
  int bos;  // -1: none
};

// Keys of config.json by the field of ModelConfig that they fill. Those which transformers spells alike for
// every family (model_type, architectures, tie_word_embeddings, bos_token_id, ...) are config.cc's.
struct ConfigKeys {
  const char* layers;
  const char* hidden;
  const char* heads;
  const char* kv_heads;
  const char* head_dim;
  const char* ffn;
  const char* vocab;
  const char* max_positions;
  const char* norm_epsilon;
  const char* activation;
  const char* rope_theta;
  const char* attention_bias;
  const char* mlp_bias;
  const char* sliding_window;
  const char* use_sliding_window;
};

// Names of modules; a tensor is MODULE.weight or MODULE.bias. Those of layer 3 are LAYERS + "3." + PART.
struct TensorNames {
  const char* embedding;
  const char* head;  // absent when tied
  const char* final_norm;
  const char* layers;                                    // "model.layers."
  const char* attention_norm;                            // part: the norm before q, k, v
  const char* mlp_norm;                                  // part: the norm before gate, up
  std::array<const char*, kLinearKinds.size()> linears;  // parts, in the order of kLinearKinds
};

struct Family {
  std::span<const ModelType> types;
  ConfigKeys keys;
  TensorNames names;
  const char* activation;  // of the MLP's gate; what is computed is "silu"
  float norm_offset;       // norms compute x / rms(x) * (norm_offset + stored weight)
};

// All model types of all families, in the order of messages.
std::vector<const ModelType*> ModelTypes();
const ModelType* FindModelType(std::string_view name);  // null when it is not known
// "llama, mistral CONJUNCTION qwen2", each with " (REMARK)" behind it where that member is not empty.
std::string JoinNames(std::span<const ModelType* const> types, std::string_view conjunction,
                      std::string_view ModelType::*remark = nullptr);

// Names of tensors from those of modules.
std::string WeightName(std::string_view module);
std::string BiasName(std::string_view module);
std::string ModuleName(std::string_view weight);  // of MODULE.weight
// Module PART of a layer, "model.layers.3.self_attn.q_proj".
std::string LayerName(const TensorNames& names, size_t layer, std::string_view part);
std::string LayerName(const Family& family, size_t layer, std::string_view part);
std::string LinearTensorName(const TensorNames& names, size_t layer, LinearKind kind);
std::string LinearTensorName(const Family& family, size_t layer, LinearKind kind);

enum class TensorRole { kEmbedding, kHead, kFinalNorm, kAttentionNorm, kMlpNorm, kLinear, kBias, kOther };
// What a tensor is and where it belongs.
struct TensorPlace {
  TensorRole role = TensorRole::kOther;
  std::optional<size_t> layer;       // none outside the decoder layers
  LinearKind kind = LinearKind::kQ;  // of role kLinear
};
// Of a tensor by its full name, "model.norm.weight"; one that the family does not know is kOther.
TensorPlace PlaceOf(const TensorNames& names, std::string_view tensor);
TensorPlace PlaceOf(const Family& family, std::string_view tensor);

// What compression does with a tensor: solved under the budget, solved at a width that is given, copied, or
// not stored.
enum class Treatment { kCompressed, kGivenWidth, kCopied, kLeftOut };
Treatment TreatmentOf(TensorRole role, bool tied_head);

// The factors that a norm multiplies by, from the weights as they are stored.
std::vector<float> NormFactors(const Family& family, std::vector<float> stored);

}  // namespace mica
