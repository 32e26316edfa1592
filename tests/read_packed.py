"""Reads packed matrices with numpy alone, from docs/format.md: a second decoder, independent of the C++ one.

python3 read_packed.py FILE.safetensors    prints name, shape and mean square of every packed matrix
"""
import itertools
import json
import struct
import sys
import zlib

import numpy as np

TYPES = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1", "U16": "<u2", "U32": "<u4"}


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
    rows, cols, size, unit = fact["rows"], fact["cols"], fact["group_size"], np.float32(2.0 ** fact["exponent"])
    part = lambda p, default=None: tensors.get(f"{name}.{p}", default)
    order, runs = part("order", np.arange(cols)), part("runs").tolist()
    ends = [start for start, _ in runs[1:]] + [cols]
    groups = [(s, min(size, end - s), bits) for (begin, bits), end in zip(runs, ends) for s in range(begin, end, size)]
    keep = kept(part("mask"), fact["mask"], rows, sum(count for _, count, bits in groups if bits))
    out, coded, at, zero_at, scales = np.zeros((rows, cols), np.float32), 0, 0, 0, iter(part("scales", []))
    for start, count, bits in (g for g in groups if g[2]):
        here, coded = keep[:, coded:coded + count], coded + count
        used, code = -(-int(here.sum()) * bits // 8), np.zeros((rows, count), np.int32)
        code[here], at = values(part("codes")[at:at + used], bits, here.sum()), at + -(-used // 16) * 16
        if bits == 16:
            weight = code.astype("<u2").view("<f2").astype(np.float32) * unit
        else:
            used = -(-rows * bits // 8)
            zero, zero_at = values(part("zeros")[zero_at:zero_at + used], bits, rows), zero_at + used
            weight = (code - zero[:, None]).astype(np.float32) * (scale_values(next(scales)) * unit)[:, None]
        weight = np.ldexp(weight, part("col_exponents", np.zeros(cols, np.int8))[start:start + count])
        out[:, order[start:start + count]] = np.where(here, weight, 0)
    return out


def scale_values(code):
    """Scales from their eight bits: four of exponent, four of mantissa."""
    code = code.astype(np.int32)
    return np.ldexp(np.where(code < 16, code, code % 16 + 16).astype(np.float32), np.maximum(code // 16, 1) - 19)


def interpolated(knots, first, k):
    """zero, one, ratio, bend of class k from the stored words of the knots at classes 4 first, 4 first + 4, ..."""
    fields = [(w & 1023, w >> 10 & 63, w >> 16 & 255, w >> 24) for w in knots]
    shift = 0 if k <= 36 else (k - 33) // 4
    result = []
    for field, (low, high) in enumerate([(1, 1023), (0, 63), (0, 255), (0, 255)]):
        at, end = (k, first + len(knots) - 1) if field == 0 else (k - 4 * shift, max(first, min(first + len(knots) - 1, 9)))
        weights = [(0, 128, 0, 0), (-9, 111, 29, -3), (-8, 72, 72, -8), (-3, 29, 111, -9)][at % 4]
        near = [fields[min(max(at // 4 - 1 + i, first), end) - first][field] for i in range(4)]
        result.append(min(max(64 + sum(w * v for w, v in zip(weights, near)) >> 7, low), high))
    return result


class Table:
    """Frequencies of one class: symbols 0, +1, -1, +2, -2, ..., escape."""

    def __init__(self, zero, one, ratio, bend, raw_bits=0):
        half, fall, bend = 2047 - 2 * zero, 65535 - ratio * ratio, 67000 - (bend * bend * 5 >> 3)
        weight, last = [(1 << 24) * (32 + one) >> 6], 1 << 24
        while len(weight) < 63:
            last, fall = last * fall >> 16, min(65535, fall * bend >> 16)
            weight.append(last)
        count = 1
        while count < min(half, 63) and 2 * weight[count] * half >= sum(weight):
            count += 1
        frequency = [1 + w * (half - count) // sum(weight[:count]) for w in weight[:count]]
        frequency[0] += half - sum(frequency)
        self.frequency = [4 * zero] + [f for f in frequency for _ in "+-"] + [2]
        self.start = np.cumsum([0] + self.frequency).tolist()
        self.symbol_of = np.repeat(np.arange(len(self.frequency)), self.frequency).tolist()
        self.raw_bits = raw_bits

    def symbol(self, x, words):
        """The symbol that state x shows, and the state behind it; `words` is an iterator over the stream."""
        symbol = self.symbol_of[x & 4095]
        return symbol, refill(self.frequency[symbol] * (x >> 12) + (x & 4095) - self.start[symbol], words)

    def rest(self, symbol, x, words):
        """The integer of a symbol, its raw bits taken from the state, and the state behind them; none of an escape."""
        if symbol == len(self.frequency) - 1:
            return None, x
        n = (symbol + 1) // 2
        if self.raw_bits and n:
            n, x = (n - 1 << self.raw_bits) + (x & (1 << self.raw_bits) - 1) + 1, refill(x >> self.raw_bits, words)
        return (n if symbol % 2 else -n), x


def refill(x, words):
    return x << 16 | next(words) if x < 1 << 16 else x


def take(tables, states, words):
    """One integer of each lane, phase by phase: symbols, raw bits, escapes."""
    symbols, integers = [], []
    for lane, table in enumerate(tables):
        symbol, states[lane] = table.symbol(states[lane], words)
        symbols.append(symbol)
    for lane, (table, symbol) in enumerate(zip(tables, symbols)):
        n, states[lane] = table.rest(symbol, states[lane], words)
        integers.append(n)
    for lane, n in enumerate(integers):
        if n is None:  # escape: the integer itself follows
            x = states[lane]
            integers[lane], states[lane] = ((x & 65535) ^ 32768) - 32768, refill(x >> 16, words)
    return integers


def decode_entropy(tensors, name, fact):
    rows, cols, first = fact["rows"], fact["cols"], fact["first_knot"]
    side, tables = tensors[name + ".side"].tobytes(), tensors[name + ".tables"].tolist()
    base, words = np.frombuffer(side, "<i2", 5).tolist(), np.frombuffer(side, "<u4", 5, 12).tolist()
    states, stream = np.frombuffer(side, "<u4", 1, 32).tolist(), iter(np.frombuffer(side, "<u2", offset=36).tolist())
    vectors = []
    for i, count in enumerate([rows, rows, rows, cols, cols]):
        w = words[i]
        table = Table(w & 1023, w >> 10 & 63, w >> 16 & 255, w >> 24)
        vectors.append(np.array([take([table], states, stream)[0] + base[i] for _ in range(count)]))
    row_step, row_class, row_key, col_step, col_class = vectors
    row_class -= 4 * row_step // fact["row_resolution"]
    col_class -= 4 * col_step // 8
    order = np.argsort(row_key, kind="stable")

    classes = range(4 * first, 4 * (first + len(tables[0]) - 1) + 1)
    coders = [[Table(*interpolated(knots, first, k), 0 if k <= 36 else (k - 33) // 4) for k in classes] for knots in tables]
    following, second = {1: ([(0, 0)], [0]), 4: ([(0, 2), (2, 0), (1, 3), (3, 1)], [0, 0, 1, 1]),
                         8: ([(0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5)], [0, 1] * 4)}[fact["states"]]
    lanes, high = fact["lanes"], fact["tile_rows"]
    level, codes, at = np.zeros((rows, cols), np.float32), tensors[name + ".codes"].tobytes(), 0
    for tile, size in enumerate(tensors[name + ".tiles"].tolist()):
        states = list(struct.unpack_from(f"<{lanes}I", codes, at))
        stream, at = iter(np.frombuffer(codes[at + 4 * lanes:at + size], "<u2").tolist()), at + size
        for first in range(0, cols, lanes):
            chunk = col_class[first:first + lanes]
            machine = [0] * len(chunk)
            for r in order[high * tile:high * tile + high]:
                index = np.clip(row_class[r] + chunk, classes[0], classes[-1]) - classes[0]
                quantiser = [second[m] for m in machine]
                for c, n in enumerate(take([coders[q][k] for q, k in zip(quantiser, index.tolist())], states, stream)):
                    machine[c] = following[machine[c]][n & 1]
                    level[r, first + c] = n if fact["states"] == 1 else 2 * n - quantiser[c] * np.sign(n)
        assert states == [65536] * lanes and next(stream, None) is None, f"{name}.codes: tile {tile}"
    step = lambda e, resolution: np.ldexp((2.0 ** (e % resolution / resolution)).astype(np.float32), e // resolution)
    return level * (step(row_step, fact["row_resolution"])[:, None] * step(col_step, 8))


def decode(tensors, name, fact):
    """Weights [rows, cols] FP32 of one packed matrix."""
    return {"fixed": decode_fixed, "entropy": decode_entropy}[fact["coding"]](tensors, name, fact)


if __name__ == "__main__":
    tensors, facts = load(sys.argv[1])
    for name, fact in sorted(facts.items()):
        weights = decode(tensors, name, fact)
        print(name, fact["coding"], list(weights.shape), f"{np.square(weights).mean():.6g}")
