"""A column times s and its input over s is the same function, and so are pairs of matrices scaled as wholes: what is compressed must be as good."""
import json
import struct
import unittest

from program import DEMO, ProgramTest, main

FEW = ["--samples", 8, "--seqlen", 128, "--dtype", "fp32", "--embedding-bits", 16]


def scaled(source, target, factor):
    """Copies a single-file F32 checkpoint; factor(name, row, column) is a power of two for each element."""
    target.mkdir()
    for file in source.iterdir():
        if file.name != "model.safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    data = bytearray((source / "model.safetensors").read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        columns = entry["shape"][-1]
        values = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
        data[begin:end] = struct.pack(f"<{len(values)}f", *(v * factor(name, i // columns, i % columns) for i, v in enumerate(values)))
    (target / "model.safetensors").write_bytes(data)


def wholes(larger, smaller, octaves):
    return lambda name, row, column: 2.0 ** octaves if larger in name else 2.0 ** -octaves if smaller in name else 1


def channel(norm, readers, index, octaves):
    """One channel behind a norm: its weight there, and the columns that read it."""
    def factor(name, row, column):
        if column != index:
            return 1
        return 2.0 ** octaves if norm in name else 2.0 ** -octaves if any(reader in name for reader in readers) else 1
    return factor


class ScaleTest(ProgramTest):
    def divergence(self, model, flags):
        out = self.folder / "out"
        self.succeed("compress", model, out, "--calib", f"text={self.calib}", *FEW, *flags)
        result = json.loads(self.succeed("eval", out, "--data", f"text={self.held_out}", "--seqlen", 128, "--max-windows", 8, "--dtype", "fp32",
                                         "--reference", model, "--json"))
        for file in out.iterdir():
            file.unlink()
        out.rmdir()
        return result["datasets"]["text"]["divergence"]["kl"]

    def test_scales_do_not_matter(self):
        model = self.folder / "model"
        self.succeed("synthesize", model, "--tokenizer", DEMO, "--layers", 2, "--hidden", 64, "--ffn", 160, "--heads", 4, "--dtype", "f32")
        self.calib, self.held_out = self.text(), self.text("held_out.txt", ("docs/method.md",))
        cases = {"values": wholes("v_proj", "o_proj", -20), "outputs": wholes("v_proj", "o_proj", 20), "up": wholes("up_proj", "down_proj", 20),
                 "queries": wholes("q_proj", "k_proj", -20),
                 "attention channel": channel("input_layernorm", ("q_proj", "k_proj", "v_proj"), 5, 20),
                 "mlp channel": channel("post_attention_layernorm", ("gate_proj", "up_proj"), 9, -20),
                 "head channel": channel("model.norm", ("lm_head",), 3, 17)}
        for name, factor in cases.items():
            scaled(model, self.folder / name, factor)
        # Bits of the codes alone: in matrices as small as these an exponent more in the side information moves every step.
        for flags in (["--coding", "entropy", "--bits", 3], ["--bits", 4], ["--bits", 4, "--sparsity", 0.5]):
            expected = self.divergence(model, flags)
            for name in cases:
                with self.subTest(flags=flags, case=name):
                    found = self.divergence(self.folder / name, flags)
                    self.assertLess(abs(found / expected - 1), 0.015, f"{found} and {expected}")


if __name__ == "__main__":
    main()
