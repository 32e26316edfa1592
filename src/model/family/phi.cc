// Phi-3, Phi-3.5, Phi-4, Phi-4-mini.
#include "model/family/family.h"

namespace mica {

extern const Family kPhi;

namespace {

constexpr LinearKind kQkv[] = {LinearKind::kQ, LinearKind::kK, LinearKind::kV};
constexpr LinearKind kGateUp[] = {LinearKind::kGate, LinearKind::kUp};
constexpr FusedLinears kFused[] = {{"self_attn.qkv_proj", kQkv}, {"mlp.gate_up_proj", kGateUp}};

constexpr ModelType kTypes[] = {{.family = &kPhi,
                                 .name = "phi3",
                                 .architecture = "Phi3ForCausalLM",
                                 .also = "also Phi-4",
                                 .note = "fused qkv and gate_up, longrope, partial rotary embedding",
                                 .max_positions = 4096,
                                 .sliding = SlidingRule::kAll,
                                 .sliding_window = 0,
                                 .partial_rope = true,
                                 .bos = 1,
                                 .example = R"({"partial_rotary_factor": 0.75})"}};

}  // namespace

constexpr Family kPhi = {
    .types = kTypes, .keys = kUsualKeys, .names = kUsualNames, .fused = kFused};

}  // namespace mica
