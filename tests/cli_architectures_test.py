"""Every architecture that mica reads against an independent forward pass (reference_forward.py): checkpoints as they are, with other rope, windows and
biases, as GGUF, and packed. Where the package transformers is, the independent pass is held against it as well.

MICA_ARCHITECTURES=DIR keeps the checkpoints in DIR; where DIR/ids.json exists, they are used as they are. So a machine with transformers but without
mica checks the reference with this folder and DIR alone: MICA_ARCHITECTURES=DIR python3 cli_architectures_test.py
"""
import json
import math
import os
import pathlib
import shutil
import sys
import tempfile
import unittest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are small: threads would wait for one another longer than they work
try:
    import numpy as np
except ImportError:
    if __name__ == "__main__" and sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    print("SKIP: numpy is not installed")
    sys.exit(77)
try:
    import torch
    import transformers
except ImportError:
    transformers = None

from program import DEMO, MICA, SOURCE, ProgramTest, main, mica, read_json
from reference_forward import BIAS_BY_CONFIG, Model, read_safetensors

LENGTH, WINDOWS = 128, 2
EVAL = ["--seqlen", LENGTH, "--max-windows", WINDOWS, "--tokenizer", DEMO, "--bos", "text"]
NATS = 1e-4  # of a window's mean, in FP32
FEW = ["--preset", "fast", "--samples", 4, "--seqlen", 64, "--statistics-windows", 2, "--fisher-windows", 0]
REMOVED = object()  # of a key of config.json
SLIDING, FULL = "sliding_attention", "full_attention"

# Checkpoints with weights of their own: model type, whether the head is the embedding, whether attention has biases that config.json announces.
BASES = {"llama": ("llama", False, False), "mistral": ("mistral", True, False), "ministral": ("ministral", True, False),
         "ministral3": ("ministral3", True, False), "qwen2": ("qwen2", False, False), "qwen3": ("qwen3", True, False),
         "smollm3": ("smollm3", True, False), "granite": ("granite", False, False), "phi3": ("phi3", False, False),
         "olmo2": ("olmo2", False, False), "olmo3": ("olmo3", True, False), "gemma": ("gemma", True, False),
         "gemma2": ("gemma2", True, False), "gemma3_text": ("gemma3_text", True, False),
         "llama_bias": ("llama", True, True), "qwen3_bias": ("qwen3", True, True), "granite_bias": ("granite", True, True)}

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"long_factor": [1.0, 1.1, 1.5, 2.0, 3.0, 5.0], "short_factor": [1.0, 1.0, 1.05, 1.1, 1.2, 1.3]}
LONG_WHOLE = {"long_factor": [1.0, 1.1, 1.5, 2.0, 3.0, 5.0, 6.0, 7.0], "short_factor": [1.0, 1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5]}
MIXED = [FULL, SLIDING, SLIDING, FULL]

# The same weights with other keys: checkpoint, keys, and what the figures are: other than the checkpoint's (None) or the same as of the one named.
VARIANTS = {
    # SmolLM3Config without layer_types: the layers without rope slide, and no others.
    "smollm3_window": ("smollm3", {"use_sliding_window": True, "sliding_window": 24}, None),
    "llama_linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, None),
    "llama_dynamic_beyond": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64}, None),
    "llama_dynamic_inside": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "llama"),
    "llama_llama3": ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                "original_max_position_embeddings": 64}}, None),
    "llama_yarn": ("llama", {"rope_scaling": YARN, "max_position_embeddings": 128}, None),
    "llama_yarn_parameters": ("llama", {"rope_parameters": {"rope_theta": 10000.0, **YARN}, "rope_theta": REMOVED, "max_position_embeddings": 128},
                              "llama_yarn"),
    "llama_yarn_options": ("llama", {"rope_scaling": {**YARN, "original_max_position_embeddings": 512, "attention_factor": 1.3, "beta_fast": 24.0,
                                                      "beta_slow": 2.0, "truncate": False}}, None),
    "llama_longrope_beyond": ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, **LONG_WHOLE},
                                        "max_position_embeddings": 256}, None),
    "llama_theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_theta": REMOVED}, None),
    "mistral_window": ("mistral", {"sliding_window": 24}, None),
    "ministral_full": ("ministral", {"sliding_window": None}, None),
    "ministral_layer_types": ("ministral", {"sliding_window": 24, "layer_types": MIXED}, None),
    "ministral3_mscale": ("ministral3", {"rope_parameters": {**YARN, "rope_theta": 1e6, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 2.0,
                                                             "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3},
                                         "max_position_embeddings": 128}, None),
    "ministral3_window": ("ministral3", {"sliding_window": 24}, None),
    "qwen2_window": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2}, None),
    "qwen2_layer_types": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "layer_types": MIXED}, None),
    "qwen2_window_unused": ("qwen2", {"use_sliding_window": False, "sliding_window": 24, "max_window_layers": 2}, "qwen2"),
    "qwen3_yarn": ("qwen3", {"rope_scaling": YARN, "max_position_embeddings": 128}, None),
    "smollm3_no_rope_layers": ("smollm3", {"no_rope_layers": [1, 0, 0, 1]}, None),
    "smollm3_interval": ("smollm3", {"no_rope_layer_interval": 3}, None),
    "smollm3_interval_4": ("smollm3", {"no_rope_layer_interval": 4}, None),
    "smollm3_layer_types": ("smollm3", {"use_sliding_window": True, "sliding_window": 24, "layer_types": MIXED}, None),
    "granite_multipliers": ("granite", {"embedding_multiplier": 6.0, "attention_multiplier": 0.4, "residual_multiplier": 0.5, "logits_scaling": 2.0},
                            None),
    "phi3_longrope_beyond": ("phi3", {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 64,
                                      "max_position_embeddings": 256}, None),
    "phi3_longrope_inside": ("phi3", {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 128,
                                      "max_position_embeddings": 512}, None),
    "phi3_longrope_parameters": ("phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, **LONG},
                                          "rope_theta": REMOVED, "partial_rotary_factor": REMOVED, "original_max_position_embeddings": 64,
                                          "max_position_embeddings": 256}, "phi3_longrope_beyond"),
    "phi3_window": ("phi3", {"sliding_window": 24}, None),
    "phi3_whole_head": ("phi3", {"partial_rotary_factor": REMOVED}, None),
    "olmo2_yarn": ("olmo2", {"rope_scaling": YARN, "max_position_embeddings": 128}, None),
    "olmo3_yarn": ("olmo3", {"rope_scaling": YARN, "max_position_embeddings": 128, "layer_types": MIXED}, None),
    "olmo3_yarn_parameters": ("olmo3", {"rope_parameters": {FULL: {"rope_theta": 500000.0, **YARN},
                                                            SLIDING: {"rope_type": "default", "rope_theta": 500000.0}},
                                        "rope_theta": REMOVED, "max_position_embeddings": 128, "layer_types": MIXED},
                              "olmo3_yarn"),
    "olmo3_layer_types": ("olmo3", {"sliding_window": 24, "layer_types": MIXED}, None),
    "gemma_linear": ("gemma", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, None),
    "gemma2_caps": ("gemma2", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, None),
    "gemma2_no_caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}, None),
    "gemma2_scalar": ("gemma2", {"query_pre_attn_scalar": 64}, None),
    "gemma2_window": ("gemma2", {"sliding_window": 24}, None),
    "gemma2_layer_types": ("gemma2", {"sliding_window": 24, "layer_types": MIXED}, None),
    "gemma3_rope": ("gemma3_text", {"rope_theta": 1e6, "rope_local_base_freq": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, None),
    "gemma3_rope_parameters": ("gemma3_text", {"rope_parameters": {FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                                                   SLIDING: {"rope_type": "default", "rope_theta": 500.0}},
                                               "rope_theta": REMOVED}, "gemma3_rope"),
    "gemma3_pattern": ("gemma3_text", {"sliding_window": 24, "sliding_window_pattern": 3}, None),
    "gemma3_layer_types": ("gemma3_text", {"sliding_window": 24, "sliding_window_pattern": REMOVED, "layer_types": MIXED}, None),
    "gemma3_cap": ("gemma3_text", {"final_logit_softcapping": 3.0}, None),
}

# Keys that mica takes for another model than transformers does.

# What the export says where GGUF has no word for it; all else is measured from the file.
GGUF_CANNOT = {"llama_dynamic_beyond": "cannot say that its rotary embedding is scaled dynamically",
               "smollm3": "cannot say that layer 1 is without a rotary embedding",
               "gemma2_scalar": "cannot say that attention scores are multiplied by 0.125",
               "gemma2_layer_types": "cannot say that attention of layer 0 sees all tokens"}
# A file of these has no window, which the export warns of: with the same keys, but for the window, it is that model.
GGUF_WITHOUT_WINDOW = {"mistral_window": "mistral", "ministral": "ministral_full", "ministral3_window": "ministral3", "qwen2_window": "qwen2"}
# Rope and windows that the file's keys carry.
GGUF_CARRIES = ("llama_linear", "llama_llama3", "llama_yarn", "llama_longrope_beyond", "ministral3_mscale", "qwen3_yarn", "smollm3_interval_4",
                "granite_multipliers", "phi3_longrope_beyond", "phi3_longrope_inside", "phi3_window", "olmo3_yarn", "olmo3_layer_types",
                "gemma2_caps", "gemma2_window", "gemma3_rope", "gemma3_layer_types")

# Each architecture with one coding whose result is exported exactly, some with the types of GGUF.
CODINGS = {name: ("entropy", "fixed")[at % 2] for at, name in enumerate(name for name in BASES if not name.endswith("_bias"))}
GGUF_CODING = ("phi3", "gemma3_text", "olmo2")


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + 4 * values.size]}
        offset += 4 * values.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(values.astype("<f4").tobytes())


def make_base(folder, family, tied, biased):
    """A checkpoint in which no tensor is idle: norms and biases are random too (a new model has 1 and 0), attention is sharp enough for rope to count."""
    flags = [*(["--tied"] if tied else []), *(["--rope-theta", 500000] if family == "olmo3" else [])]
    done = mica("synthesize", folder, "--architecture", family, "--preset", "tiny", "--hidden", 64, "--heads", 4, "--kv-heads", 2, "--layers", 4, "--ffn", 96,
                "--dtype", "fp32", "--tokenizer", DEMO, *flags)
    assert done.returncode == 0, done.stderr
    tensors = read_safetensors(folder / "model.safetensors")
    random = np.random.default_rng(7)
    if biased:
        config = read_json(folder / "config.json")
        (folder / "config.json").write_text(json.dumps({**config, "attention_bias": True}, indent=2))
        for name in [name for name in tensors if ".self_attn." in name and name.endswith("_proj.weight")]:
            tensors[name[:-len("weight")] + "bias"] = np.zeros(len(tensors[name]))
    for name, values in tensors.items():
        if values.ndim == 1:
            tensors[name] = values + 0.3 * random.standard_normal(values.shape)
        elif name.endswith(("q_proj.weight", "k_proj.weight", "qkv_proj.weight")):
            tensors[name] = 1.5 * values
    write_safetensors(folder / "model.safetensors", tensors)


def make_variant(folder, base, edits):
    """A copy of a checkpoint with other keys, the weights shared."""
    folder.mkdir()
    for file in base.iterdir():
        if file.name != "config.json":
            os.symlink(file, folder / file.name)
    config = {**read_json(base / "config.json"), **edits}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not REMOVED}, indent=2))


def setUpModule():
    """Makes CHECKPOINTS/NAME of every base, CHECKPOINTS/ids.json, and VARIANT_FOLDER/NAME of every variant."""
    global SCRATCH, CHECKPOINTS, VARIANT_FOLDER, IDS, EXPECTED
    SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="mica_architectures_"))
    CHECKPOINTS = pathlib.Path(os.environ.get("MICA_ARCHITECTURES", SCRATCH / "bases")).absolute()
    if not (CHECKPOINTS / "ids.json").exists():
        if not shutil.which(MICA):
            shutil.rmtree(SCRATCH)
            raise unittest.SkipTest(f"SKIP: no {MICA} to make checkpoints, and no ids.json in MICA_ARCHITECTURES")
        CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        for name, description in BASES.items():
            make_base(CHECKPOINTS / name, *description)
        text = SCRATCH / "text.txt"
        text.write_bytes((SOURCE / "docs" / "method.md").read_bytes()[:3000])
        done = mica("tokenize", DEMO, text)
        assert done.returncode == 0, done.stderr
        (CHECKPOINTS / "ids.json").write_text(json.dumps(json.loads(done.stdout)[:LENGTH * WINDOWS]))
    IDS = read_json(CHECKPOINTS / "ids.json")
    VARIANT_FOLDER = SCRATCH / "variants"
    VARIANT_FOLDER.mkdir()
    for name, (base, edits, _) in VARIANTS.items():
        make_variant(VARIANT_FOLDER / name, CHECKPOINTS / base, edits)
    EXPECTED = {}


def tearDownModule():
    shutil.rmtree(SCRATCH, ignore_errors=True)


def path_of(name):
    return CHECKPOINTS / name if name in BASES else VARIANT_FOLDER / name


def expected(name):
    """The reference's mean nats per token of each window, computed once."""
    if name not in EXPECTED:
        EXPECTED[name] = Model(path_of(name)).window_nll(IDS, LENGTH, WINDOWS)
    return EXPECTED[name]


def distance(one, other):
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@unittest.skipUnless(shutil.which(MICA), f"SKIP: no {MICA}")
class ArchitecturesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.text_file = self.folder / "text.txt"
        self.text_file.write_bytes((SOURCE / "docs" / "method.md").read_bytes()[:3000])

    def evaluate(self, model, *flags):
        out = self.folder / "result.json"
        self.succeed("eval", model, "--data", f"text={self.text_file}", *EVAL, "-o", out, *flags)
        return read_json(out)["datasets"]["text"]

    def same(self, model, figures, nats=NATS):
        """The windows of `model`, in FP32, have these mean nats."""
        windows = self.evaluate(model, "--dtype", "fp32")["window_nll"]
        self.assertLess(distance(windows, figures), nats, f"{model.name}: {windows}, the reference says {figures}")

    def test_checkpoints_agree_with_the_reference(self):
        for name in BASES:
            with self.subTest(checkpoint=name):
                self.same(path_of(name), expected(name))
                fast = self.evaluate(path_of(name))
                self.assertLess(abs(fast["nll"] - sum(expected(name)) / WINDOWS), math.log(1.005), "perplexity of the precision that is taken by itself")

    def test_keys_of_config_json_agree_with_the_reference(self):
        for name, (base, _, like) in VARIANTS.items():
            with self.subTest(variant=name):
                if like:
                    self.assertLess(distance(expected(name), expected(like)), 1e-9, f"{name} spells {like} in another way")
                else:  # else the keys would not be tested
                    self.assertGreater(distance(expected(name), expected(base)), 10 * NATS)
                self.same(path_of(name), expected(name))

    def export(self, name, out, *flags):
        done = mica("export", path_of(name), out, *flags)
        self.assertEqual(done.returncode, 0, f"{name}: {done.stderr}")
        return done.stderr

    def test_gguf_files_agree_with_the_reference(self):
        file = self.folder / "model.gguf"
        for name in (*BASES, *GGUF_CARRIES, *GGUF_WITHOUT_WINDOW, *GGUF_CANNOT):
            with self.subTest(checkpoint=name):
                file.unlink(missing_ok=True)
                if name in GGUF_CANNOT:
                    self.fail_with(GGUF_CANNOT[name], "export", path_of(name), file, "--to", "gguf")
                    continue
                said = self.export(name, file, "--to", "gguf")
                self.assertEqual("let it see all" in said, name in (*GGUF_WITHOUT_WINDOW, "phi3_window"), said)  # phi3's key is there, for mica alone
                self.same(file, expected(GGUF_WITHOUT_WINDOW.get(name, name)))

    def same_or_refused(self, name):
        """The GGUF file of the checkpoint is the same model, or there is none."""
        file = self.folder / "model.gguf"
        if mica("export", path_of(name), file, "--to", "gguf").returncode == 0:
            self.same(file, expected(name))

    def test_gguf_files_lose_the_range_of_yarn_that_is_not_rounded(self):
        self.same_or_refused("llama_yarn_options")  # truncate: false

    def test_gguf_files_lose_the_cap_of_gemma3(self):
        self.same_or_refused("gemma3_cap")

    def compress(self, name, coding, *flags):
        out = self.folder / f"{name}_{coding}"
        self.succeed("compress", path_of(name), out, "--calib", f"text={SOURCE / 'LICENSE'}", "--coding", coding, *FEW, *flags)
        return out

    def test_packed_checkpoints_agree_with_the_reference(self):
        for name, coding in CODINGS.items():
            with self.subTest(checkpoint=name, coding=coding):
                packed, plain = self.compress(name, coding, "--bits", 5), self.folder / f"{name}_plain"
                self.succeed("export", packed, plain, "--to", "hf", "--dtype", "fp32")
                figures = Model(plain).window_nll(IDS, LENGTH, WINDOWS)
                self.assertGreater(distance(figures, expected(name)), NATS, "what is packed is another model")
                self.same(packed, figures)

    def test_gguf_coding_stays_near_the_reference(self):
        """Blocks of 8 bits: what they cost is less than what a wrong rule would."""
        for name in GGUF_CODING:
            with self.subTest(checkpoint=name):
                self.same(self.compress(name, "gguf", "--gguf-types", "Q8_0", "--bits", 8.5), expected(name), nats=0.02)


@unittest.skipIf(transformers is None, "SKIP: no package transformers")
class TransformersTest(unittest.TestCase):
    """The reference against what it was written from."""

    def test_logits_agree(self):
        window = IDS[:LENGTH]
        for name in (*BASES, *VARIANTS):
            if name == "ministral_full":
                continue  # transformers wants a window where its default layer_types slide
            with self.subTest(checkpoint=name):
                config = transformers.AutoConfig.from_pretrained(path_of(name))
                config.pad_token_id = None  # some have one by themselves that lies beyond this vocabulary
                model = transformers.AutoModelForCausalLM.from_pretrained(path_of(name), config=config, dtype=torch.float32, attn_implementation="eager")
                with torch.no_grad():
                    theirs = model(torch.tensor([window])).logits[0].double().numpy()
                difference = np.abs(Model(path_of(name)).logits(window) - theirs).max()
                self.assertLess(difference, 1e-4, name)


if __name__ == "__main__":
    main()
