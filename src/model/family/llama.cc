// LLaMA (also Vicuna and Yi), Mistral, Qwen2.
#include "model/family/family.h"

namespace mica {

extern const Family kLlama;

namespace {

constexpr ModelType kTypes[] = {
    {.family = &kLlama,
     .name = "llama",
     .architecture = "LlamaForCausalLM",
     .also = "also Vicuna and Yi",
     .note = "",
     .max_positions = 2048,
     .sliding = SlidingRule::kNever,
     .sliding_window = 0,
     .biases = BiasRule::kConfig,
     .bos = 1},
    {.family = &kLlama,
     .name = "mistral",
     .architecture = "MistralForCausalLM",
     .also = "",
     .note = "",
     .max_positions = 131072,
     .sliding = SlidingRule::kWindow,
     .sliding_window = 4096,
     .biases = BiasRule::kNone,
     .bos = 1},
    {.family = &kLlama,
     .name = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .also = "",
     .note = "biases on q, k, v",
     .max_positions = 32768,
     .sliding = SlidingRule::kFlag,
     .sliding_window = 4096,
     .biases = BiasRule::kQkv,
     .bos = -1},
};

}  // namespace

constexpr Family kLlama = {
    .types = kTypes,
    .keys = {.layers = "num_hidden_layers",
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
             .attention_bias = "attention_bias",
             .mlp_bias = "mlp_bias",
             .sliding_window = "sliding_window",
             .use_sliding_window = "use_sliding_window"},
    .names = {.embedding = "model.embed_tokens",
              .head = "lm_head",
              .final_norm = "model.norm",
              .layers = "model.layers.",
              .attention_norm = "input_layernorm",
              .mlp_norm = "post_attention_layernorm",
              .linears = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                          "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}},
    .activation = "silu",
    .norm_offset = 0.0f,
};

}  // namespace mica
