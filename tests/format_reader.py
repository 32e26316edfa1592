"""Reads a packed checkpoint in plain Python, sentence by sentence as docs/format.md has it and from nothing else.

It is slow and has no tricks: what it finds wrong in a file that the program wrote, a reader of the document will, too.
"""
import itertools
import json
import struct
import zlib

WIDTHS = (0, 2, 3, 4, 6, 8, 16)


def fp32(value):
    """The FP32 value next to a Python float; products of two FP32 values are exact before."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


class Bits:
    """A bit stream fills each byte from its lowest bit, and a value's lowest bit comes first."""

    def __init__(self, data):
        self.value, self.at, self.bytes = int.from_bytes(data, "little"), 0, len(data)

    def take(self, count):
        found = self.value >> self.at & (1 << count) - 1
        self.at += count
        return found

    def end(self, multiple):
        """Zero bits up to a multiple of `multiple` bytes and nothing behind them."""
        assert self.bytes == -(-self.at // (8 * multiple)) * multiple and self.value >> self.at == 0, "padding"


class File:
    def __init__(self, path):
        raw = path.read_bytes()
        begin = 8 + struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8:begin])
        self.texts = header.pop("__metadata__", {})
        self.tensors = {name: (entry["dtype"], entry["shape"], raw[begin + entry["data_offsets"][0]:begin + entry["data_offsets"][1]])
                        for name, entry in header.items()}
        self.matrices = {key.removeprefix("mica.matrix."): text for key, text in self.texts.items() if key.startswith("mica.matrix.")}
        parts = {f"{name}.{part}" for name, text in self.matrices.items() for part in json.loads(text)["crc32"] if part != "facts"}
        for name, (_, _, data) in self.tensors.items():  # "an entry for each packed matrix and for each plain tensor"
            if name not in parts:
                assert self.texts[f"mica.crc32.{name}"] == f"{zlib.crc32(data):08x}", name

    def facts(self, name):
        """The facts of a matrix, its checksums compared."""
        text = self.matrices[name]
        facts = json.loads(text)
        assert list(facts)[-1] == "crc32", "last"
        crc = facts.pop("crc32")
        own = json.dumps(facts, separators=(",", ":"))
        assert text.startswith(own[:-1] + ',"crc32":{'), "keys in their order, no blanks"
        assert crc.pop("facts") == f"{zlib.crc32(own.encode()):08x}", name
        for part, expected in crc.items():
            assert f"{zlib.crc32(self.tensors[f'{name}.{part}'][2]):08x}" == expected, f"{name}.{part}"
        return facts

    def part(self, name, part, dtype, shape=None):
        """Its bytes; none where there are no elements."""
        if f"{name}.{part}" not in self.tensors:
            assert shape is None or 0 in shape, f"{name}.{part} is missing"
            return b""
        found, found_shape, data = self.tensors[f"{name}.{part}"]
        assert found == dtype and (shape is None or found_shape == shape), (name, part, found, found_shape, shape)
        return data

    def numbers(self, name, part, dtype, shape=None):
        letter = {"I8": "b", "U8": "B", "U16": "H", "U32": "I"}[dtype]
        data = self.part(name, part, dtype, shape)
        return list(struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data))

    def decode(self, name):
        """Weights [rows][cols] of a packed matrix, FP32."""
        facts = self.facts(name)
        return {"fixed": decode_fixed, "entropy": decode_entropy}[facts["coding"]](self, name, facts)


# Coding fixed.

def mask_row(kind, bits, columns):
    """Which coded columns of a row are kept."""
    if kind == "bitmap":
        return [bits.take(1) == 1 for _ in range(columns)]
    kept, cell, width = {"2:4": (2, 4, 3), "4:8": (4, 8, 7)}[kind]
    lists = list(itertools.combinations(range(cell), kept))  # in lexicographic order
    row = []
    for _ in range(columns // cell):
        chosen = lists[bits.take(width)]
        row += [i in chosen for i in range(cell)]
    return row + [bits.take(1) == 1 for _ in range(columns % cell)]


def decode_fixed(file, name, facts):
    rows, cols, size, exponent, kind = (facts[key] for key in ("rows", "cols", "group_size", "exponent", "mask"))
    flat = file.numbers(name, "runs", "U32")
    runs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    assert runs[0][0] == 0 and runs == sorted(runs) and len({width for _, width in runs}) == len(runs)
    assert all(width in WIDTHS for _, width in runs)
    groups = []  # first stored column, columns, width
    for (first, width), end in zip(runs, [begin for begin, _ in runs[1:]] + [cols]):
        groups += [(g, min(size, end - g), width) for g in range(first, end, size)]
    coded = [p for first, count, width in groups if width > 0 for p in range(first, first + count)]
    place = {p: i for i, p in enumerate(coded)}
    if kind == "none":
        kept = [[True] * len(coded)] * rows
    else:
        data = file.part(name, "mask", "U8")
        row_bytes = len(data) // rows
        kept = []
        for r in range(rows):
            bits = Bits(data[r * row_bytes:(r + 1) * row_bytes])
            kept.append(mask_row(kind, bits, len(coded)))
            bits.end(1)
    order = list(range(cols))
    if f"{name}.order" in file.tensors:
        order = file.numbers(name, "order", "U16" if cols <= 65536 else "U32", [cols])
    exponents = [0] * cols
    if f"{name}.col_exponents" in file.tensors:
        exponents = file.numbers(name, "col_exponents", "I8", [cols])
        assert any(exponents), "absent when all are 0"
    assert all(-100 <= exponent + e <= 100 for e in exponents)
    scaled = [group for group in groups if group[2] not in (0, 16)]
    scales = file.numbers(name, "scales", "U8", [len(scaled), rows])
    zeros, codes = file.part(name, "zeros", "U8"), file.part(name, "codes", "U8")
    weights = [[0.0] * cols for _ in range(rows)]
    scale_group = 0
    for first, count, width in groups:
        if width == 0:
            continue
        columns = range(first, first + count)
        used = sum(kept[r][place[p]] for r in range(rows) for p in columns) * width
        length = -(-used // 128) * 16
        stream, codes = Bits(codes[:length]), codes[length:]
        if width != 16:
            length = -(-rows * width // 8)
            zero_stream, zeros = Bits(zeros[:length]), zeros[length:]
            zero = [zero_stream.take(width) for _ in range(rows)]
            zero_stream.end(1)
            steps = []
            for s in scales[scale_group * rows:(scale_group + 1) * rows]:
                steps.append(2.0 ** (exponent - 18) * s if s < 16 else 2.0 ** (exponent - 19 + s // 16) * (16 + s % 16))
            scale_group += 1
        for r in range(rows):
            for p in columns:
                if not kept[r][place[p]]:
                    continue
                code = stream.take(width)
                if width == 16:
                    weights[r][order[p]] = fp32(2.0 ** (exponent + exponents[p]) * struct.unpack("<e", struct.pack("<H", code))[0])
                else:
                    weights[r][order[p]] = fp32((code - zero[r]) * steps[r] * 2.0 ** exponents[p])
        stream.end(16)
    assert not codes and not zeros, "codes and zeros hold nothing else"
    return weights


# Coding entropy.

LAST_TAIL_KNOT = 9  # class 36


def interpolated(knots, first, k):
    """zero, one, ratio and bend of class k."""
    numbers = [(word & 1023, word >> 10 & 63, word >> 16 & 255, word >> 24) for word in knots]
    b = raw_bits(k)
    found = []
    for which, (low, high) in enumerate(((1, 1023), (0, 63), (0, 255), (0, 255))):
        at, last = k, first + len(knots) - 1
        if which > 0:  # one, ratio, bend
            at, last = k - 4 * b, min(last, LAST_TAIL_KNOT)
        j, t = divmod(at, 4)

        def v(knot):
            return numbers[min(max(knot, first), last) - first][which]

        factors = {1: (-9, 111, 29, -3), 2: (-8, 72, 72, -8), 3: (-3, 29, 111, -9)}
        value = v(j) if t == 0 else sum(f * v(j - 1 + i) for i, f in enumerate(factors[t])) + 64 >> 7
        found.append(min(max(value, low), high))
    return found


def raw_bits(k):
    return (k - 33) // 4 if k > 36 else 0


class Table:
    def __init__(self, zero, one, ratio, bend, b=0):
        half = 2047 - 2 * zero
        w = [None, (1 << 24) * (32 + one) >> 6]
        v, f, d = 1 << 24, 65535 - ratio ** 2, 67000 - (5 * bend ** 2 >> 3)
        for _ in range(2, 64):
            v = v * f >> 16
            w.append(v)
            f = min(65535, f * d >> 16)
        m, total = 1, sum(w[1:])
        while m < min(half, 63) and 2 * w[m + 1] * half >= total:
            m += 1
        kept = sum(w[1:m + 1])
        of_sign = [1 + w[i] * (half - m) // kept for i in range(1, m + 1)]
        of_sign[0] += half - sum(of_sign)
        self.symbols = [("integer", 0, 4 * zero)]
        for magnitude, frequency in enumerate(of_sign, 1):
            self.symbols += [("integer", magnitude, frequency), ("integer", -magnitude, frequency)]
        self.symbols.append(("escape", None, 2))
        self.of_slot, self.b, first = [], b, 0
        for kind, value, frequency in self.symbols:
            self.of_slot += [(kind, value, frequency, first)] * frequency
            first += frequency
        assert first == 4096, "frequencies sum to 4096"

    def symbol(self, x):
        """Kind and value of the symbol that state x shows, and the state behind it."""
        kind, value, frequency, first = self.of_slot[x % 4096]
        return kind, value, frequency * (x >> 12) + x % 4096 - first


def take(tables, states, words):
    """An integer of each lane in its table, in three phases; `words` is what is left of the stream, last word first."""
    symbols = []
    for lane, table in enumerate(tables):
        kind, value, x = table.symbol(states[lane])
        states[lane] = refill(x, words)
        symbols.append((kind, value))
    integers = [value for _, value in symbols]
    for lane, table in enumerate(tables):  # raw bits
        kind, value = symbols[lane]
        if table.b > 0 and kind != "escape" and value != 0:
            x = states[lane]
            magnitude = ((abs(value) - 1) << table.b) + x % (1 << table.b) + 1
            integers[lane] = magnitude if value > 0 else -magnitude
            states[lane] = refill(x >> table.b, words)
    for lane, (kind, _) in enumerate(symbols):  # escapes: two's complement
        if kind == "escape":
            x = states[lane]
            integers[lane] = x % 65536 - (65536 if x % 65536 >= 32768 else 0)
            states[lane] = refill(x >> 16, words)
    return integers


def refill(x, words):
    return 65536 * x + words.pop() if x < 65536 else x


def words_of(data):
    return list(struct.unpack(f"<{len(data) // 2}H", data))[::-1]


MACHINES = {4: ([(0, 2), (2, 0), (1, 3), (3, 1)], [0, 0, 1, 1]),
            8: ([(0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5)], [0, 1, 0, 1, 0, 1, 0, 1])}


def decode_entropy(file, name, facts):
    rows, cols, count, resolution, first = (facts[key] for key in ("rows", "cols", "states", "row_resolution", "first_knot"))
    lanes, high = facts["lanes"], facts["tile_rows"]
    assert first <= 9 and lanes in (1, 2, 4, 8, 16, 32) and 1 <= high <= 4096
    side = file.part(name, "side", "U8")
    base, tables = struct.unpack("<5h", side[:10]), struct.unpack("<5I", side[12:32])
    states, words = list(struct.unpack("<I", side[32:36])), words_of(side[36:])
    vectors = []
    for word, offset, length in zip(tables, base, (rows, rows, rows, cols, cols)):
        table = Table(word & 1023, word >> 10 & 63, word >> 16 & 255, word >> 24)
        vectors.append([take([table], states, words)[0] + offset for _ in range(length)])
    assert states == [65536] and not words, "side"
    row_step, row_class, row_key, col_step, col_class = vectors
    row_class = [k - 4 * e // resolution for k, e in zip(row_class, row_step)]
    col_class = [k - 4 * e // 8 for k, e in zip(col_class, col_step)]
    assert all(abs(e) <= 50 * resolution for e in row_step) and all(abs(e) <= 50 * 8 for e in col_step)

    quantisers = 1 if count == 1 else 2
    flat = file.numbers(name, "tables", "U32")
    knots = len(flat) // quantisers
    stored = [flat[q * knots:(q + 1) * knots] for q in range(quantisers)]
    known = {}

    def table_of(q, k):
        k = min(max(k, 4 * first), 4 * (first + knots - 1))
        if (q, k) not in known:
            known[q, k] = Table(*interpolated(stored[q], first, k), raw_bits(k))
        return known[q, k]

    order = sorted(range(rows), key=lambda r: row_key[r])  # keeps rows of equal key in their order
    row_scale = [fp32(2.0 ** (e / resolution)) for e in row_step]
    col_scale = [fp32(2.0 ** (e / 8)) for e in col_step]
    codes, weights = file.part(name, "codes", "U8"), [[0.0] * cols for _ in range(rows)]
    for tile, length in enumerate(file.numbers(name, "tiles", "U32", [-(-rows // high)])):
        stream, codes = codes[:length], codes[length:]
        states, words = list(struct.unpack(f"<{lanes}I", stream[:4 * lanes])), words_of(stream[4 * lanes:])
        assert min(states) >= 65536
        for chunk in range(0, cols, lanes):
            columns = range(chunk, min(cols, chunk + lanes))
            machine = [0] * len(columns)
            for r in order[high * tile:high * (tile + 1)]:
                quantisers = [MACHINES[count][1][m] if count > 1 else 0 for m in machine]
                tables = [table_of(q, row_class[r] + col_class[c]) for q, c in zip(quantisers, columns)]
                for lane, n in enumerate(take(tables, states, words)):
                    level, c = n, columns[lane]
                    if count > 1:
                        level = 0 if n == 0 else (2 * abs(n) - quantisers[lane]) * (1 if n > 0 else -1)
                        machine[lane] = MACHINES[count][0][machine[lane]][abs(n) % 2]
                    if level != 0:
                        weights[r][c] = fp32(level * fp32(row_scale[r] * col_scale[c]))
        assert states == [65536] * lanes and not words, "tile"
    assert not codes
    return weights
