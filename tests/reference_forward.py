"""The forward pass of every architecture that mica reads, in float64 and with numpy alone: what mica's own arithmetic is tested against.

Written from the definitions that Hugging Face's transformers publishes (modeling_*.py, configuration_*.py, modeling_rope_utils.py), with the keys of
config.json as it writes them, the older spelling (rope_scaling beside rope_theta) and the newer one (rope_parameters). It shares nothing with mica's
C++ and is written to be read beside the papers, not to be fast. What it leaves out: caches, padding, dropout; a window is one sequence from position 0.

    python3 reference_forward.py MODEL IDS.json [--seqlen 128] [--windows 3]

prints the mean nats per token of each window of the token ids (a JSON array), every window on its own and all its tokens but the first scored.
"""
import argparse
import json
import math
import pathlib

import numpy as np

LLAMA_LIKE = ("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "smollm3", "granite", "phi3")
GEMMAS = ("gemma", "gemma2", "gemma3_text")
OLMOS = ("olmo2", "olmo3")
FOUR_NORMS = ("gemma2", "gemma3_text")
BIAS_BY_CONFIG = ("llama", "qwen3", "smollm3", "granite", "olmo2", "olmo3", *GEMMAS)  # q, k, v and o, where attention_bias is true
MLP_BIAS_BY_CONFIG = ("llama", "smollm3", "granite")
DEFAULT_THETA = {"smollm3": 2e6, "gemma3_text": 1e6, "ministral3": 1e6, "olmo3": 5e5}  # where config.json names none; 10000 elsewhere


def read_safetensors(path):
    """name -> float64 array of one file: 8 bytes length, a JSON header, then the data at offsets from the header's end."""
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = data[begin:end]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def read_checkpoint(folder):
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    tensors = {}
    for name in names:
        tensors.update(read_safetensors(folder / name))
    return tensors


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


ACTIVATIONS = {"silu": lambda x: x / (1 + np.exp(-x)), "gelu_pytorch_tanh": gelu_tanh, "gelu_new": gelu_tanh,
               "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))}


def rope_parameters(config, kind):
    """The rope of layers of `kind` (full_attention or sliding_attention), spelled the newer way: rope_type, rope_theta and what belongs to the type."""
    family = config["model_type"]
    spelled = config.get("rope_scaling") or config.get("rope_parameters") or {}
    theta = config.get("rope_theta", DEFAULT_THETA.get(family, 1e4))
    if "full_attention" in spelled or "sliding_attention" in spelled:  # one a kind of layer
        spelled = spelled[kind]
    elif kind == "sliding_attention" and family == "gemma3_text":
        spelled, theta = {}, config.get("rope_local_base_freq", 1e4)
    elif kind == "sliding_attention" and family == "olmo3":  # the same base, but what is scaled is the full layers alone
        spelled = {"rope_theta": spelled.get("rope_theta", theta)}
    rope = dict(spelled)
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    if family == "phi3":
        rope["partial_rotary_factor"] = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
        if rope["rope_type"] in ("su", "yarn"):  # earlier names of the same
            rope["rope_type"] = "longrope"
    else:
        rope["partial_rotary_factor"] = 1.0  # the others turn the whole head whatever config.json says
    rope.setdefault("rope_theta", theta)
    original = config.get("original_max_position_embeddings", rope.get("original_max_position_embeddings"))
    rope["original_max_position_embeddings"] = original or config["max_position_embeddings"]
    return rope


def yarn(rope, dim, exponents, factor):
    """Frequencies and the factor of cos and sin: https://arxiv.org/abs/2309.00071, with mscale as DeepSeek added it."""
    theta, original = rope["rope_theta"], rope["original_max_position_embeddings"]

    def dimension_of(rotations):  # the pair that turns so often over the original context
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_of(rope.get("beta_fast") or 32), dimension_of(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    frequencies = theta ** -exponents

    def magnitude(mscale):
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1

    scale = rope.get("attention_factor")
    if scale is None:
        mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
        scale = magnitude(mscale) / magnitude(all_dim) if mscale and all_dim else magnitude(1)
    return frequencies / factor * ramp + frequencies * (1 - ramp), scale


def frequencies_of(rope, config, length):
    """Angle a position of each pair of a head's dimensions, and the factor of cos and sin, for a sequence of `length` tokens."""
    dim = int(head_dim(config) * rope["partial_rotary_factor"])
    exponents = np.arange(0, dim, 2) / dim
    theta, kind = rope["rope_theta"], rope["rope_type"]
    original, positions = rope["original_max_position_embeddings"], config["max_position_embeddings"]
    plain = theta ** -exponents
    if kind == "default":
        return plain, 1.0
    if kind == "linear":
        return plain / rope["factor"], 1.0
    if kind == "dynamic":
        stretch = rope["factor"] * max(length, positions) / positions - (rope["factor"] - 1)
        return (theta * stretch ** (dim / (dim - 2))) ** -exponents, 1.0
    factor = rope.get("factor") or positions / original
    if kind == "yarn":
        return yarn(rope, dim, exponents, factor)
    if kind == "longrope":
        divisors = np.array(rope["long_factor" if length > original else "short_factor"], np.float64)
        scale = rope.get("attention_factor")
        if scale is None:
            scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
        return plain / divisors, scale
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = original * plain / (2 * math.pi)  # over the original context
        share = np.clip((turns - low) / (high - low), 0, 1)
        return (1 - share) * plain / factor + share * plain, 1.0
    raise ValueError(f"rope_type {kind}")


def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rotate(x, cos, sin):
    """x: [heads, tokens, head_dim]; cos, sin: [tokens, pairs]. Pair i is dimensions i and i + pairs; what lies behind the pairs stays."""
    pairs = cos.shape[1]
    first, second, rest = x[..., :pairs], x[..., pairs:2 * pairs], x[..., 2 * pairs:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def rope_of_layer(config, layer):
    """Whether the layer has a rotary embedding."""
    if config["model_type"] != "smollm3":
        return True
    with_rope = config.get("no_rope_layers")  # 1 is with rope, in spite of its name
    return bool(with_rope[layer]) if with_rope is not None else (layer + 1) % config.get("no_rope_layer_interval", 4) != 0


def layer_kind(config, layer):
    """full_attention or sliding_attention, as layer_types says or the family's rule."""
    family, types = config["model_type"], config.get("layer_types")
    layered = {"ministral": config.get("sliding_window", 4096) is not None,
               "qwen2": config.get("use_sliding_window", False) and layer >= config.get("max_window_layers", 28),
               "smollm3": config.get("use_sliding_window", False) and not rope_of_layer(config, layer),
               "gemma2": layer % 2 == 0,
               "gemma3_text": (layer + 1) % config.get("sliding_window_pattern", 6) != 0,
               "olmo3": (layer + 1) % 4 != 0}
    layered["qwen3"] = layered["qwen2"]
    if family in layered:
        return types[layer] if types is not None else "sliding_attention" if layered[family] else "full_attention"
    return "sliding_attention" if family in ("mistral", "ministral3", "phi3") else "full_attention"  # these do not look at layer_types


def window_of_layer(config, layer):
    """Tokens that a token attends to, itself among them; None: all before it."""
    family = config["model_type"]
    if layer_kind(config, layer) == "full_attention":
        return None
    if family in ("qwen2", "qwen3") and not config.get("use_sliding_window", False):
        return None
    return config.get("sliding_window", None if family in ("phi3", "ministral3", "smollm3") else 4096)


class Model:
    def __init__(self, folder):
        self.config = json.loads((pathlib.Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.family = self.config["model_type"]
        if self.family not in (*LLAMA_LIKE, *GEMMAS, *OLMOS):
            raise ValueError(f"model_type {self.family}")
        self.tensors = read_checkpoint(folder)
        self.unread = {name for name in self.tensors if not name.endswith("rotary_emb.inv_freq")}
        activation = self.config.get("hidden_activation") or "gelu_pytorch_tanh" if self.family in GEMMAS else self.config.get("hidden_act", "silu")
        self.activation = ACTIVATIONS[activation]

    def tensor(self, name):
        self.unread.discard(name)
        return self.tensors[name]

    def norm(self, x, name):
        """RMSNorm over the last dimension; the weights of the Gemmas are stored less 1."""
        weight = self.tensor(name + ".weight") + (1 if self.family in GEMMAS else 0)
        return weight * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config["rms_norm_eps"])

    def linear(self, x, name, bias):
        y = x @ self.tensor(name + ".weight").T
        return y + self.tensor(name + ".bias") if bias else y

    def project(self, x, prefix):
        """Queries [tokens, heads * head_dim], keys and values [tokens, kv_heads * head_dim]."""
        config = self.config
        if self.family == "phi3":
            query = config["num_attention_heads"] * head_dim(config)
            key = config["num_key_value_heads"] * head_dim(config)
            return np.split(self.linear(x, prefix + "qkv_proj", False), [query, query + key], axis=1)
        bias = self.family == "qwen2" or self.family in BIAS_BY_CONFIG and config.get("attention_bias", False)
        return [self.linear(x, prefix + name, bias) for name in ("q_proj", "k_proj", "v_proj")]

    def attention(self, x, layer):
        """x: [tokens, hidden]."""
        config, prefix, tokens = self.config, f"model.layers.{layer}.self_attn.", len(x)
        heads, size = config["num_attention_heads"], head_dim(config)
        query, key, value = self.project(x, prefix)
        if self.family in OLMOS:  # over all heads together
            query, key = self.norm(query, prefix + "q_norm"), self.norm(key, prefix + "k_norm")
        query, key, value = (part.reshape(tokens, -1, size) for part in (query, key, value))
        if self.family in ("qwen3", "gemma3_text"):  # over each head
            query, key = self.norm(query, prefix + "q_norm"), self.norm(key, prefix + "k_norm")
        query, key, value = (part.transpose(1, 0, 2) for part in (query, key, value))  # [heads, tokens, size]

        position = np.arange(tokens)
        rope = rope_parameters(config, layer_kind(config, layer) if self.family in ("gemma3_text", "olmo3") else "full_attention")
        if rope_of_layer(config, layer):
            frequencies, factor = frequencies_of(rope, config, tokens)
            angle = position[:, None] * frequencies
            cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if self.family == "ministral3":
            beta = rope.get("llama_4_scaling_beta") or 0.0
            query = query * (1 + beta * np.log(1 + position // rope["original_max_position_embeddings"]))[:, None]

        scale = size ** -0.5
        if self.family == "granite":
            scale = config.get("attention_multiplier", 1.0)
        elif self.family in FOUR_NORMS:
            scale = config.get("query_pre_attn_scalar", 256) ** -0.5
        key, value = (np.repeat(part, heads // part.shape[0], axis=0) for part in (key, value))
        scores = query @ key.transpose(0, 2, 1) * scale
        cap = config.get("attn_logit_softcapping", 50.0) if self.family == "gemma2" else None
        if cap is not None:
            scores = cap * np.tanh(scores / cap)
        distance = position[:, None] - position
        window = window_of_layer(config, layer)
        seen = (distance >= 0) & (distance < (window or tokens))
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ value).transpose(1, 0, 2).reshape(tokens, heads * size)
        return self.linear(mixed, prefix + "o_proj", self.family in BIAS_BY_CONFIG and config.get("attention_bias", False))

    def mlp(self, x, layer):
        prefix = f"model.layers.{layer}.mlp."
        bias = self.family in MLP_BIAS_BY_CONFIG and self.config.get("mlp_bias", False)
        if self.family == "phi3":
            gate, up = np.split(self.linear(x, prefix + "gate_up_proj", False), 2, axis=1)
        else:
            gate, up = self.linear(x, prefix + "gate_proj", bias), self.linear(x, prefix + "up_proj", bias)
        return self.linear(self.activation(gate) * up, prefix + "down_proj", bias)

    def layer(self, x, layer):
        prefix = f"model.layers.{layer}."
        if self.family in OLMOS:  # what a branch says is normalised, not what it reads
            x = x + self.norm(self.attention(x, layer), prefix + "post_attention_layernorm")
            return x + self.norm(self.mlp(x, layer), prefix + "post_feedforward_layernorm")
        if self.family in FOUR_NORMS:
            branch = self.attention(self.norm(x, prefix + "input_layernorm"), layer)
            x = x + self.norm(branch, prefix + "post_attention_layernorm")
            branch = self.mlp(self.norm(x, prefix + "pre_feedforward_layernorm"), layer)
            return x + self.norm(branch, prefix + "post_feedforward_layernorm")
        share = self.config.get("residual_multiplier", 1.0) if self.family == "granite" else 1.0
        x = x + share * self.attention(self.norm(x, prefix + "input_layernorm"), layer)
        return x + share * self.mlp(self.norm(x, prefix + "post_attention_layernorm"), layer)

    def logits(self, ids):
        """ids: one sequence. [tokens, vocabulary]."""
        config = self.config
        embedding = self.tensor("model.embed_tokens.weight")
        x = embedding[np.asarray(ids)]
        if self.family in GEMMAS:
            x = x * math.sqrt(config["hidden_size"])
        elif self.family == "granite":
            x = x * config.get("embedding_multiplier", 1.0)
        for layer in range(config["num_hidden_layers"]):
            x = self.layer(x, layer)
        x = self.norm(x, "model.norm")
        tied = config.get("tie_word_embeddings", self.family in (*GEMMAS, "smollm3"))
        logits = x @ (embedding if tied else self.tensor("lm_head.weight")).T
        if tied:
            self.unread.discard("lm_head.weight")
        if self.family == "granite":
            logits = logits / config.get("logits_scaling", 1.0)
        cap = {"gemma2": config.get("final_logit_softcapping", 30.0), "gemma3_text": config.get("final_logit_softcapping")}.get(self.family)
        if cap is not None:
            logits = cap * np.tanh(logits / cap)
        if self.unread:
            raise ValueError(f"the architecture does not say what these tensors are for: {sorted(self.unread)}")
        return logits

    def window_nll(self, ids, length, windows):
        """Mean nats per token of each window of `length` ids; its first token is read, not scored."""
        result = []
        for first in range(0, min(windows * length, len(ids) - length + 1), length):
            window = ids[first:first + length]
            logits = self.logits(window)[:-1]
            top = logits.max(axis=1)
            total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            result.append(float(np.mean(total - logits[np.arange(length - 1), window[1:]])))
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("ids", help="JSON array of token ids")
    parser.add_argument("--seqlen", type=int, default=128)
    parser.add_argument("--windows", type=int, default=3)
    arguments = parser.parse_args()
    ids = json.loads(pathlib.Path(arguments.ids).read_text())
    print(json.dumps(Model(arguments.model).window_nll(ids, arguments.seqlen, arguments.windows)))


if __name__ == "__main__":
    main()
