// Any bytes either parse as a config.json, whose numbers are then usable together, or throw Error.
#include "base/error.h"
#include "model/config.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  WriteSeeds(
      *argc, *argv,
      {R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":64,
"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,
"max_position_embeddings":2048,"rms_norm_eps":1e-05,"rope_theta":10000.0,"vocab_size":512,"tie_word_embeddings":false,
"bos_token_id":1,"attention_bias":true,"mlp_bias":false,"rope_scaling":{"rope_type":"llama3","factor":8.0,
"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}})",
       R"({"model_type":"mistral","hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4,
"vocab_size":512,"sliding_window":null,"rope_scaling":{"type":"linear","factor":2.0},"rope_parameters":{"rope_theta":1e6}})",
       R"({"model_type":"qwen2","hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4,
"vocab_size":512,"use_sliding_window":true,"sliding_window":4096,"layer_types":["full_attention","full_attention"],
"quantization_config":{"quant_method":"mica","version":1}})",
       R"({"model_type":"llama","hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4,
"vocab_size":512,"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["lm_head"],
"quantization_status":"compressed","config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int",
"symmetric":true,"strategy":"group","group_size":32}},"group_1":{"targets":["re:.*v_proj$"],"weights":{"num_bits":8,
"strategy":"channel"}}}}})"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const ModelConfig config =
        ParseConfig(ParseJson({reinterpret_cast<const char*>(data), size}, "fuzz"), "fuzz");
    MICA_CHECK(config.layers > 0 && config.hidden > 0 && config.vocab > 0 && config.ffn > 0 &&
               config.head_dim % 2 == 0);
    MICA_CHECK(config.heads % config.kv_heads == 0 && config.ropes.front().theta > 0 && config.norm_epsilon > 0);
    MICA_CHECK(ParameterCount(config) > 0);
  } catch (const Error&) {
  }
  return 0;
}
