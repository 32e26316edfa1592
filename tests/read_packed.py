"""Reads packed matrices with numpy alone, from docs/format.md: a second decoder, independent of the C++ one.

python3 read_packed.py FILE.safetensors    prints name, shape and mean square of every packed matrix
"""
import itertools
import json
import sys
import zlib

import numpy as np

TYPES = {"F32": "<f4", "F16": "<f2", "U8": "u1", "U16": "<u2", "U32": "<u4"}


def load(path):
    """All tensors {name: array} of one safetensors file, and the facts {name: object} of its packed matrices."""
    raw = np.fromfile(path, np.uint8)
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:start].tobytes())
    facts = {k[12:]: json.loads(v) for k, v in header.pop("__metadata__").items() if k.startswith("mica.matrix.")}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = raw[start + begin:start + end].view(TYPES[entry["dtype"]]).reshape(entry["shape"])
    for name, fact in facts.items():
        for part, crc in fact["crc32"].items():
            data = tensors[f"{name}.{part}"].tobytes() if part != "facts" else json.dumps(
                {k: v for k, v in fact.items() if k != "crc32"}, separators=(",", ":")).encode()
            assert f"{zlib.crc32(data):08x}" == crc, f"{name}.{part}: checksum"
    return tensors, facts


def values(data, bits, count):
    """`count` numbers of `bits` bits from a byte stream, lowest bit first."""
    return np.unpackbits(data, bitorder="little")[:count * bits].reshape(count, bits) @ (1 << np.arange(bits))


def kept(mask, kind, rows, cols):
    """Which weights of the coded columns have a code, [rows, cols] bool."""
    if kind == "none" or cols == 0:
        return np.ones((rows, cols), bool)
    bits = np.unpackbits(mask, axis=1, bitorder="little")
    if kind == "bitmap":
        return bits[:, :cols].astype(bool)
    n, m, width = {"2:4": (2, 4, 3), "4:8": (4, 8, 7)}[kind]
    patterns = np.array([[i in c for i in range(m)] for c in itertools.combinations(range(m), n)])
    blocks = cols // m
    rank = bits[:, :blocks * width].reshape(rows, blocks, width) @ (1 << np.arange(width))
    tail = bits[:, blocks * width:blocks * width + cols % m].astype(bool)
    return np.concatenate([patterns[rank].reshape(rows, blocks * m), tail], axis=1)


def decode_fixed(tensors, name, fact):
    rows, cols, size = fact["rows"], fact["cols"], fact["group_size"]
    part = lambda p, default=None: tensors.get(f"{name}.{p}", default)
    order, runs = part("order", np.arange(cols)), part("groups").tolist()
    ends = [start for start, _ in runs[1:]] + [cols]
    groups = [(s, min(size, end - s), bits) for (begin, bits), end in zip(runs, ends) for s in range(begin, end, size)]
    keep = kept(part("mask"), fact["mask"], rows, sum(count for _, count, bits in groups if bits))
    out, coded, at, zero_at, scales = np.zeros((rows, cols), np.float32), 0, 0, 0, iter(part("scales", []))
    for start, count, bits in (g for g in groups if g[2]):
        here, coded = keep[:, coded:coded + count], coded + count
        used, code = -(-int(here.sum()) * bits // 8), np.zeros((rows, count), np.int32)
        code[here], at = values(part("codes")[at:at + used], bits, here.sum()), at + -(-used // 16) * 16
        if bits == 16:
            weight = code.astype("<u2").view("<f2").astype(np.float32)
        else:
            used = -(-rows * bits // 8)
            zero, zero_at = values(part("zeros")[zero_at:zero_at + used], bits, rows), zero_at + used
            weight = (code - zero[:, None]).astype(np.float32) * next(scales).astype(np.float32)[:, None]
        out[:, order[start:start + count]] = np.where(here, weight, 0)
    return out


def decode(tensors, name, fact):
    """Weights [rows, cols] FP32 of one packed matrix."""
    return {"fixed": decode_fixed}[fact["coding"]](tensors, name, fact)


if __name__ == "__main__":
    tensors, facts = load(sys.argv[1])
    for name, fact in sorted(facts.items()):
        weights = decode(tensors, name, fact)
        print(name, fact["coding"], list(weights.shape), f"{np.square(weights).mean():.6g}")
