"""A column times s and its input over s is the same function, and so are pairs of matrices scaled as wholes: what is compressed must be as good."""
import json
import struct
import unittest

from program import ProgramTest, main

FEW = ["--samples", 8, "--seqlen", 128, "--dtype", "fp32", "--embedding-bits", 16]


def scaled(source, target, scales):
    """Copies a single-file F32 checkpoint; scales(name): octaves for the tensor and the column that gets them (None: all), or nothing."""
    target.mkdir()
    for file in source.iterdir():
        if file.name != "model.safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    data = bytearray((source / "model.safetensors").read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    values = memoryview(data)[8 + length:].cast("f")
    for name, entry in header.items():
        scale = scales(name) if name != "__metadata__" else None
        if scale is None:
            continue
        octaves, column = scale
        begin, end = (offset // 4 for offset in entry["data_offsets"])
        step = 1 if column is None else entry["shape"][-1]
        for i in range(begin + (column or 0), end, step):
            values[i] *= 2.0 ** octaves
    (target / "model.safetensors").write_bytes(data)


def wholes(larger, smaller, octaves):
    return lambda name: (octaves, None) if larger in name else (-octaves, None) if smaller in name else None


def channel(norm, readers, index, octaves):
    """One channel behind a norm: its weight there, and the columns that read it."""
    return lambda name: (octaves, index) if norm in name else (-octaves, index) if any(reader in name for reader in readers) else None


class ScaleTest(ProgramTest):
    def divergence(self, model, flags):
        out = self.folder / "out"
        self.succeed("compress", model, out, "--calib", f"text={self.calib}", *FEW, *flags)
        result = json.loads(self.succeed("eval", out, "--data", f"text={self.held_out}", "--seqlen", 128, "--max-windows", 40, "--dtype", "fp32",
                                         "--reference", model, "--json"))
        for file in out.iterdir():
            file.unlink()
        out.rmdir()
        return result["datasets"]["text"]["divergence"]["kl"]

    def mean_divergence(self, model, flags, seeds):
        return sum(self.divergence(model, [*flags, "--seed", seed]) for seed in seeds) / len(seeds)

    def test_scales_do_not_matter(self):
        model = self.folder / "model"
        self.succeed("synthesize", model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 192, "--ffn", 448, "--heads", 4, "--dtype", "f32")
        self.calib, self.held_out = self.text(), self.text("held_out.txt", ("dictionary",))
        cases = {"values": wholes("v_proj", "o_proj", -20), "outputs": wholes("v_proj", "o_proj", 20), "up": wholes("up_proj", "down_proj", 20),
                 "queries": wholes("q_proj", "k_proj", -20),
                 "attention channel": channel("input_layernorm", ("q_proj", "k_proj", "v_proj"), 5, 20),
                 "mlp channel": channel("post_attention_layernorm", ("gate_proj", "up_proj"), 9, -20),
                 "head channel": channel("model.norm", ("lm_head",), 3, 17)}
        for name, scales in cases.items():
            scaled(model, self.folder / name, scales)
        # In coding entropy a step of side information moves all that follows: as little as another seed does, so some are averaged.
        for flags, seeds in ((["--coding", "entropy", "--bits", 3], (1, 2, 3)), (["--bits", 4], (0,)), (["--bits", 4, "--sparsity", 0.5], (0,))):
            expected = self.mean_divergence(model, flags, seeds)
            for name in cases:
                with self.subTest(flags=flags, case=name):
                    found = self.mean_divergence(self.folder / name, flags, seeds)
                    self.assertLess(abs(found / expected - 1), 0.015, f"{found} and {expected}")


if __name__ == "__main__":
    main()
