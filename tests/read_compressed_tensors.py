"""Reads and writes directories of compressed-tensors ("pack-quantized") with numpy alone: a second decoder, independent of the C++ one."""
import json
import re

import numpy as np

TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")


class Tensor:
    def __init__(self, dtype, values):
        self.dtype, self.values = dtype, values

    def floats(self):
        if self.dtype == "BF16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32)


def bf16(values):
    """The upper halves of FP32 values that have no more bits than that."""
    return Tensor("BF16", (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16))


def f16(values):
    return Tensor("F16", values.astype(np.float16))


def header(path):
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:start]), start, raw


def load(path):
    """All tensors of a safetensors file by name, and its metadata."""
    entries, start, raw = header(path)
    metadata, tensors = entries.pop("__metadata__", {}), {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        tensors[name] = Tensor(entry["dtype"], np.frombuffer(raw[start + begin:start + end], TYPES[entry["dtype"]]).reshape(entry["shape"]))
    return tensors, metadata


def load_directory(path):
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return load(path / "model.safetensors")[0]
    tensors = {}
    for name in sorted(set(json.loads(index.read_text())["weight_map"].values())):
        tensors |= load(path / name)[0]
    return tensors


def save(path, tensors):
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        size = tensor.values.nbytes
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.values.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(np.ascontiguousarray(t.values).tobytes() for t in tensors.values()))


def pack(codes, bits, dense=True):
    """[rows, n] codes in words along the last axis."""
    rows, count = codes.shape
    stream = (codes[:, :, None] >> np.arange(bits) & 1).astype(np.uint8)
    if not dense:
        each = 32 // bits
        padded = np.zeros((rows, -(-count // each) * each, bits), np.uint8)
        padded[:, :count] = stream
        words = padded.reshape(rows, -1, each * bits)
        stream = np.concatenate([words, np.zeros((*words.shape[:2], 32 - each * bits), np.uint8)], axis=2)
    stream = stream.reshape(rows, -1)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return np.packbits(stream, axis=1, bitorder="little").view("<i4")


def unpack(words, bits, count):
    """The other way round; the packing by the number of words."""
    rows = words.shape[0]
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    if words.shape[1] == -(-count * bits // 32):
        stream = stream[:, :count * bits].reshape(rows, count, bits)
    else:
        each = 32 // bits
        stream = stream.reshape(rows, -1, 32)[:, :, :each * bits].reshape(rows, -1, bits)[:, :count]
    return stream.astype(np.int64) @ (1 << np.arange(bits))


def scheme_of(quantization, module):
    """The arguments of a linear layer, None when it is ignored or not aimed at."""
    def names(target):
        return re.match(target[3:], module) is not None if target.startswith("re:") else target == module
    if any(names(target) or target == "Linear" for target in quantization["ignore"]):
        return None
    found = [(0 if target == module else 1 if target.startswith("re:") and names(target) else 2, group["weights"])
             for group in quantization["config_groups"].values() for target in group["targets"] if names(target) or target == "Linear"]
    return min(found, key=lambda one: one[0])[1] if found else None


def decode(tensors, module, scheme):
    part = {name: tensors[f"{module}.{name}"] for name in PARTS if f"{module}.{name}" in tensors}
    rows, cols = part["weight_shape"].values.tolist()
    bits, scales = scheme["num_bits"], part["weight_scale"].floats()
    codes = unpack(part["weight_packed"].values, bits, cols)
    group_of = part["weight_g_idx"].values if "weight_g_idx" in part else np.arange(cols) // (cols // scales.shape[1])
    zeros = np.full(scales.shape, 1 << bits - 1)
    if not scheme["symmetric"]:
        zeros = unpack(np.ascontiguousarray(part["weight_zero_point"].values.T), bits, rows).T
    return scales[:, group_of] * (codes - zeros[:, group_of]).astype(np.float32)


def decode_directory(path):
    """Every tensor as FP32, matrices under the names that they had."""
    tensors, quantization = load_directory(path), json.loads((path / "config.json").read_text())["quantization_config"]
    plain = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if part == "weight_packed":
            plain[f"{module}.weight"] = decode(tensors, module, scheme_of(quantization, module))
        elif part not in PARTS:
            plain[name] = tensor.floats()
    return plain
