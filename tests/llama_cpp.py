"""llama.cpp itself, as an oracle: the libraries in the npm package node-llama-cpp (3.21.1), called through ctypes."""
import ctypes
import glob
import json
import math
import os
import pathlib
import sys
import time

VERSION = "3.21.1"  # of the package: the structures below are those of its llama.h
FTYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q4_K_S": 14,
          "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ3_S": 26, "IQ4_XS": 30}
TYPE_F32, TYPE_COUNT = 0, 43  # the latter: leave the choice to llama.cpp


def fields(text, kind):
    return [(name, kind) for name in text.split()]


class ModelParams(ctypes.Structure):
    _fields_ = (fields("devices overrides", ctypes.c_void_p) + fields("gpu_layers split load lazy main_gpu", ctypes.c_int32) +
                fields("tensor_split progress progress_data kv_overrides", ctypes.c_void_p) +
                fields("vocab_only check_tensors extra_buffers no_host no_alloc load_mtp", ctypes.c_bool))


class ContextParams(ctypes.Structure):
    _fields_ = (fields("n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq threads threads_batch",
                       ctypes.c_int32) +
                fields("context_type rope_scaling pooling attention flash_attention", ctypes.c_int32) +
                fields("rope_base rope_scale yarn_ext yarn_attn yarn_fast yarn_slow", ctypes.c_float) +
                fields("yarn_orig", ctypes.c_uint32) + fields("defrag", ctypes.c_float) +
                fields("eval eval_data", ctypes.c_void_p) + fields("type_k type_v", ctypes.c_int32) +
                fields("abort abort_data", ctypes.c_void_p) +
                fields("embeddings offload_kqv no_perf op_offload swa_full kv_unified", ctypes.c_bool) +
                fields("samplers", ctypes.c_void_p) + fields("n_samplers", ctypes.c_size_t) + fields("other", ctypes.c_void_p))


class QuantizeParams(ctypes.Structure):
    _fields_ = (fields("threads ftype output_type embedding_type", ctypes.c_int32) +
                fields("requantize quantize_output only_copy pure keep_split dry_run", ctypes.c_bool) +
                fields("imatrix kv_overrides tensor_types prune_layers", ctypes.c_void_p) + fields("max_buffer", ctypes.c_size_t))


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


def find():
    """The folder of the libraries, or why there is none: MICA_NODE_LLAMA names a node_modules directory."""
    modules = os.environ.get("MICA_NODE_LLAMA")
    if not modules:
        return None, "MICA_NODE_LLAMA is not set (node_modules with node-llama-cpp@" + VERSION + ")"
    folder = pathlib.Path(modules) / "@node-llama-cpp" / "linux-x64" / "bins" / "linux-x64"
    found = glob.glob(str(folder / "libllama.v*.so"))
    return (folder, "") if found else (None, f"{folder}: holds no libllama.v*.so")


class LlamaCpp:
    def __init__(self, folder):
        def load(pattern):
            return ctypes.CDLL(glob.glob(str(folder / pattern))[0], mode=ctypes.RTLD_GLOBAL)
        load("libggml-base.so")
        self.ggml, self.llama = load("libggml.v*.so"), load("libllama.v*.so")
        self._quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.llama.llama_log_set(self._quiet, None)
        self.ggml.ggml_backend_load_all_from_path(str(folder).encode())
        self.llama.llama_backend_init()
        for name, kind in [("llama_model_default_params", ModelParams), ("llama_context_default_params", ContextParams),
                           ("llama_model_quantize_default_params", QuantizeParams)]:
            getattr(self.llama, name).restype = kind
        for name, arguments in [("llama_model_load_from_file", [ctypes.c_char_p, ModelParams]),
                                ("llama_init_from_model", [ctypes.c_void_p, ContextParams]),
                                ("llama_model_get_vocab", [ctypes.c_void_p]), ("llama_get_memory", [ctypes.c_void_p])]:
            getattr(self.llama, name).restype = ctypes.c_void_p
            getattr(self.llama, name).argtypes = arguments
        self.llama.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        self.llama.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        self.llama.llama_decode.argtypes = [ctypes.c_void_p, Batch]
        self.llama.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        self.llama.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
        self.llama.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                              ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
        for name in ("llama_free", "llama_model_free"):
            getattr(self.llama, name).argtypes = [ctypes.c_void_p]

    def quantize(self, source, target, ftype, pure=False):
        """llama-quantize, without an importance matrix."""
        params = self.llama.llama_model_quantize_default_params()
        params.ftype, params.pure, params.threads = FTYPES[ftype], pure, 2
        code = self.llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
        if code != 0:
            raise RuntimeError(f"llama_model_quantize({source}, {ftype}) gives {code}")


class Model:
    """A GGUF file in llama.cpp; a context manager."""

    def __init__(self, cpp, path, n_ctx=512, as_running=False, threads=2):
        """as_running: with what llama.cpp takes by itself for keys and attention, instead of FP32 for comparisons."""
        self.llama = cpp.llama
        params = self.llama.llama_model_default_params()
        params.gpu_layers = 0
        self.model = self.llama.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        params = self.llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.threads = params.threads_batch = threads
        if not as_running:
            params.type_k = params.type_v = TYPE_F32
            params.flash_attention = 0
        self.context = self.llama.llama_init_from_model(self.model, params)
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        self.n_vocab = self.llama.llama_vocab_n_tokens(self.vocab)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.llama.llama_free(self.context)
        self.llama.llama_model_free(self.model)

    def tokenize(self, text):
        """Ids of a text, with what begins it."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.llama.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, False)
        return list(ids[:count])

    def forget(self):
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)

    def decode(self, ids, past, wanted):
        """Passes ids behind the `past` tokens that were passed before; logits are there of those that wanted(i) names."""
        n = len(ids)
        zero = ctypes.pointer(ctypes.c_int32(0))
        batch = Batch(n, (ctypes.c_int32 * n)(*ids), None, (ctypes.c_int32 * n)(*range(past, past + n)), (ctypes.c_int32 * n)(*[1] * n),
                      (ctypes.POINTER(ctypes.c_int32) * n)(*[zero] * n), (ctypes.c_int8 * n)(*map(wanted, range(n))))
        if self.llama.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode fails")

    def logits_of(self, i):
        return self.llama.llama_get_logits_ith(self.context, i)[:self.n_vocab]

    def logits(self, ids):
        """Of each position, one list at a time."""
        self.forget()
        self.decode(ids, 0, lambda i: 1)
        for i in range(len(ids)):
            yield self.logits_of(i)

    def nats(self, ids):
        """-log p of ids[1:], each after those before it."""
        found = []
        for logits, following in zip(self.logits(ids), ids[1:]):
            most = max(logits)
            found.append(most + math.log(sum(math.exp(x - most) for x in logits)) - logits[following])
        return found

    def generate(self, ids, count):
        """The `count` most likely tokens behind ids, one after the other, each with its logit and the next largest one."""
        self.forget()
        found, past, new = [], 0, list(ids)
        for _ in range(count):
            self.decode(new, past, lambda i, last=len(new) - 1: int(i == last))
            logits = self.logits_of(-1)
            past += len(new)
            new = [max(range(self.n_vocab), key=logits.__getitem__)]
            found.append((new[0], *sorted(logits, reverse=True)[:2]))
        return found

    def seconds(self, prompt, generated, repetitions):
        """Seconds that a prompt of so many tokens takes, and so many tokens one by one: a list of each, behind one that does not count."""
        def measured(steps):
            self.forget()
            began, past = time.monotonic(), 0
            for count in steps:
                self.decode([(7 * past + i) % self.n_vocab for i in range(count)], past, lambda i, last=count - 1: int(i == last))
                self.llama.llama_get_logits_ith(self.context, -1)
                past += count
            return time.monotonic() - began
        return [[measured(steps) for _ in range(repetitions + 1)][1:] if steps else [] for steps in ([prompt] if prompt else [], [1] * generated)]


def main():
    """llama_cpp.py FILE PROMPT GENERATED REPETITIONS THREADS: one JSON object, tokens a second and seconds of loading."""
    path, *numbers = sys.argv[1:]
    prompt, generated, repetitions, threads = map(int, numbers)
    cpp = LlamaCpp(find()[0])
    began = time.monotonic()
    with Model(cpp, path, max(prompt, generated, 2), as_running=True, threads=threads) as model:
        loaded = time.monotonic() - began
        of_prompt, of_generated = model.seconds(prompt, generated, repetitions)
    print(json.dumps({"load_seconds": loaded, "prompt": [prompt / s for s in of_prompt], "decode": [generated / s for s in of_generated]}))


if __name__ == "__main__":
    main()
