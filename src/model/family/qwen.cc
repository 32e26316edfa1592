// Qwen2 (also 2.5) and Qwen3.
#include "model/family/family.h"

namespace mica {

extern const Family kQwen;

namespace {

constexpr ModelType kTypes[] = {
    {.family = &kQwen,
     .name = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .also = "also Qwen2.5",
     .note = "biases on q, k, v",
     .max_positions = 32768,
     .sliding = SlidingRule::kFlag,
     .sliding_window = 4096,
     .biases = BiasRule::kQkv,
     .example = R"({"use_sliding_window": false})"},
    {.family = &kQwen,
     .name = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .note = "norms of each head of q and k",
     .max_positions = 32768,
     .sliding = SlidingRule::kFlag,
     .sliding_window = 4096,
     .biases = BiasRule::kConfig,
     .norms = kInputNorms | kHeadNorms,
     .head_dim = 128,
     .example = R"({"use_sliding_window": false})"},
};

}  // namespace

constexpr Family kQwen = {.types = kTypes, .keys = kUsualKeys, .names = kUsualNames};

}  // namespace mica
