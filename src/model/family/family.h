// Model families: decoders of one pattern (norm, attention, norm, gated MLP) whose layers data describe. One
// file declares the model types that spell their config.json and their tensors alike (llama.cc); family.cc
// holds the table of them.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
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

// The norms of one decoder layer: of what enters attention and MLP; of what these add to the residual stream;
// of the queries and keys before they turn.
enum class NormKind { kAttentionInput, kMlpInput, kAttentionOutput, kMlpOutput, kQuery, kKey };
inline constexpr std::array kNormKinds = {NormKind::kAttentionInput,  NormKind::kMlpInput,
                                          NormKind::kAttentionOutput, NormKind::kMlpOutput,
                                          NormKind::kQuery,           NormKind::kKey};

class NormSet {
 public:
  constexpr NormSet() = default;
  constexpr NormSet(std::initializer_list<NormKind> norms) {
    for (const NormKind norm : norms) bits_ |= Bit(norm);
  }
  constexpr bool contains(NormKind norm) const { return (bits_ & Bit(norm)) != 0; }
  constexpr NormSet operator|(NormSet other) const {
    other.bits_ |= bits_;
    return other;
  }
  constexpr bool operator==(const NormSet&) const = default;

 private:
  static constexpr unsigned Bit(NormKind norm) { return 1u << static_cast<unsigned>(norm); }
  unsigned bits_ = 0;
};
inline constexpr NormSet kInputNorms = {NormKind::kAttentionInput, NormKind::kMlpInput};
inline constexpr NormSet kOutputNorms = {NormKind::kAttentionOutput, NormKind::kMlpOutput};
inline constexpr NormSet kHeadNorms = {NormKind::kQuery, NormKind::kKey};

struct Family;
struct ModelConfig;
class ConfigReader;

// Which linear layers have biases: none; q, k and v; what config.json says of attention (q, k, v, o) and MLP.
enum class BiasRule { kNone, kQkv, kConfig };
// Which layers' attention slides: none; all, unless sliding_window is null; where use_sliding_window is true,
// those from max_window_layers on; all but each sliding_period-th. For the last two layer_types, where it is
// given, says it.
enum class SlidingRule { kNever, kAll, kFlag, kPeriod };

// One model_type of config.json, and what transformers assumes for keys that its config.json leaves out.
struct ModelType {
  const Family* family;
  std::string_view name;          // "llama"
  std::string_view architecture;  // "LlamaForCausalLM"
  std::string_view also = {};     // for messages: "also Vicuna and Yi", or empty
  std::string_view note = {};     // for the help: "biases on q, k, v", or empty
  size_t max_positions = 2048;
  SlidingRule sliding = SlidingRule::kNever;
  size_t sliding_window = 0;  // unless sliding is kNever
  size_t sliding_period = 0;  // of kPeriod
  bool local_rope = false;    // sliding layers have a rotary embedding of their own, without scaling
  bool partial_rope = false;  // partial_rotary_factor is computed
  double rope_theta = 10000.0;
  BiasRule biases = BiasRule::kNone;
  NormSet norms = kInputNorms;
  bool tied_head = false;
  std::optional<size_t> head_dim = {};  // none: hidden / heads
  int bos = -1;                         // -1: none
  // JSON: what config.json of a random checkpoint (synthesize.h) says besides shapes.
  std::string_view example = "{}";
  // Reads what only this type's config.json says, after all else is read.
  void (*describe)(const ConfigReader& reader, ModelConfig& config) = nullptr;
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
  const char* local_rope_theta;  // of types with a local_rope; null: theirs is rope_theta
  const char* attention_bias;
  const char* mlp_bias;
  const char* sliding_window;
  const char* use_sliding_window;
};
// What most of them are.
inline constexpr ConfigKeys kUsualKeys = {.layers = "num_hidden_layers",
                                          .hidden = "hidden_size",
                                          .heads = "num_attention_heads",
                                          .kv_heads = "num_key_value_heads",
                                          .head_dim = "head_dim",
                                          .ffn = "intermediate_size",
                                          .vocab = "vocab_size",
                                          .max_positions = "max_position_embeddings",
                                          .norm_epsilon = "rms_norm_eps",
                                          .activation = "hidden_act",
                                          .rope_theta = "rope_theta",
                                          .local_rope_theta = nullptr,
                                          .attention_bias = "attention_bias",
                                          .mlp_bias = "mlp_bias",
                                          .sliding_window = "sliding_window",
                                          .use_sliding_window = "use_sliding_window"};

// Names of modules; a tensor is MODULE.weight or MODULE.bias. Those of layer 3 are LAYERS + "3." + PART.
struct TensorNames {
  const char* embedding;
  const char* head;  // absent when tied
  const char* final_norm;
  const char* layers;                                    // "model.layers."
  std::array<const char*, kNormKinds.size()> norms;      // parts, in the order of kNormKinds; null: none has it
  std::array<const char*, kLinearKinds.size()> linears;  // parts, in the order of kLinearKinds
};
inline constexpr std::array<const char*, kLinearKinds.size()> kUsualLinears = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
inline constexpr TensorNames kUsualNames = {
    .embedding = "model.embed_tokens",
    .head = "lm_head",
    .final_norm = "model.norm",
    .layers = "model.layers.",
    .norms = {"input_layernorm", "post_attention_layernorm", nullptr, nullptr, "self_attn.q_norm",
              "self_attn.k_norm"},
    .linears = kUsualLinears};

// Linear layers that a family's checkpoints store as one matrix, rows of the first kind first.
struct FusedLinears {
  const char* part;  // of the layer, "self_attn.qkv_proj"
  std::span<const LinearKind> kinds;
};

struct Family {
  std::span<const ModelType> types;
  ConfigKeys keys;
  TensorNames names;
  const char* activation = "silu";              // of the MLP's gate where config.json does not say it
  float norm_offset = 0.0f;                     // norms compute x / rms(x) * (norm_offset + stored weight)
  std::span<const FusedLinears> fused = {};  // stored so; known by the names of their parts everywhere else
};

// Makes one more family known, whose address is kept: for programs that bring their own. Before anything else is
// called.
void AddFamily(const Family& family);

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

std::string NormTensorName(const TensorNames& names, size_t layer, NormKind norm);

enum class TensorRole { kEmbedding, kHead, kFinalNorm, kNorm, kLinear, kBias, kOther };
// What a tensor is and where it belongs.
struct TensorPlace {
  TensorRole role = TensorRole::kOther;
  std::optional<size_t> layer;       // none outside the decoder layers
  LinearKind kind = LinearKind::kQ;  // of role kLinear
  NormKind norm = NormKind::kAttentionInput;  // of role kNorm
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
