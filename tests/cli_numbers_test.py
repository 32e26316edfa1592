"""Numbers from the outside: sizes at the edge of what is possible, windows and positions, blocks that are always zero, values that a narrower type
cannot hold, texts that repeat."""
import json
import shutil
import struct
import unittest

from program import DEMO, ProgramTest, main, mica, read_json

FEW = ["--samples", "4", "--seqlen", "64", "--fisher-windows", "1", "--drift-windows", "2"]


def edit(model, tensor, value, first=0, count=None):
    """Sets elements of an F32 tensor of a single-file checkpoint."""
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + length])[tensor]
    assert entry["dtype"] == "F32"
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    count = (end - begin) // 4 if count is None else count
    data[begin + 4 * first:begin + 4 * (first + count)] = struct.pack("<f", value) * count
    path.write_bytes(data)


class NumbersTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", DEMO, "--layers", 2, "--hidden", 64, "--ffn", 96, "--heads", 4, "--max-positions", 128,
                     "--dtype", "f32")
        self.calib = ["--calib", f"text={self.text()}"]

    def weight_bytes(self, out):
        return sum(file.stat().st_size for file in [*out.glob("*.safetensors"), *out.glob("*.index.json")])

    def test_size_is_refused_only_out_of_reach(self):
        for flags in ([], ["--pattern", "2:4"], ["--sparsity", "0.5"]):
            with self.subTest(flags=flags):
                out = self.folder / "out"
                refused = mica("compress", self.model, out, *self.calib, *FEW, *flags, "--size", "100kB")
                self.assertEqual(refused.returncode, 1)
                self.assertIn("--size is 100000 bytes, expected ", refused.stderr)
                self.assertFalse(out.exists())
                least, most = (int(word) for word in refused.stderr.split(" bytes, expected ")[1].split(" for ")[0].split(" to "))
                self.succeed("compress", self.model, out, *self.calib, *FEW, *flags, "--bits", 2, "--bit-options", 2)
                smallest = self.weight_bytes(out)
                self.assertLess(least, smallest + 3000)
                shutil.rmtree(out)
                if flags != ["--sparsity", "0.5"]:  # what a bitmap leaves is known when the statistics are
                    self.succeed("compress", self.model, out, *self.calib, *FEW, *flags, "--size", least)
                    self.assertLessEqual(self.weight_bytes(out), least)
                    shutil.rmtree(out)
                self.fail_with(f"--size is {most + 10000} bytes, expected {least} to {most}", "compress", self.model, out, *self.calib, *FEW, *flags,
                               "--size", most + 10000)
        for size in ("100kB", "1GB"):
            self.fail_with("--size is 100000 bytes, expected" if size == "100kB" else "--size is 1000000000 bytes, expected", "compress", self.model,
                           self.folder / "e", *self.calib, *FEW, "--coding", "entropy", "--size", size)
        self.fail_with("--bits is 1.5, expected 2 to 8 for bit widths", "compress", self.model, self.folder / "e", *self.calib, *FEW, "--bits", 1.5)
        self.fail_with("--bpw is 15, expected ", "compress", self.model, self.folder / "e", *self.calib, *FEW, "--bpw", 15)

    def test_windows_suit_the_model_and_longer_ones_are_said_once(self):
        text = self.text()
        small = ["--samples", 4, "--fisher-windows", 1, "--bits", 4]
        said = mica("compress", self.model, self.folder / "a", *self.calib, *small)
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertNotIn("positions", said.stderr)
        self.assertEqual(read_json(self.folder / "a" / "compression.json")["calibration"]["seqlen"], 128)
        longer = mica("compress", self.model, self.folder / "b", *self.calib, *small, "--seqlen", 160)
        self.assertEqual(longer.stderr.count("longer than the 128 positions"), 1, longer.stderr)
        longer = mica("eval", self.model, "--data", f"text={text}", "--data", f"b:text={text}", "--seqlen", 160, "--max-windows", 1)
        self.assertEqual(longer.stderr.count("longer than the 128 positions"), 1, longer.stderr)
        whole = mica("eval", self.model, "--data", f"text={text}", "--max-windows", 1, "--json")
        self.assertNotIn("positions", whole.stderr)
        self.assertEqual(json.loads(whole.stdout)["settings"]["seqlen"], 128)
        experiment = self.folder / "experiment.json"
        other = self.text("other.txt", ("database",))
        experiment.write_text(json.dumps({"model": str(self.model), "directory": "run", "evaluate": {"data": [{"path": str(other)}], "seqlen": 160,
                                          "max_windows": 1}, "compress": {"calib": [{"path": str(text)}], "seqlen": 160, "samples": 4, "fisher_windows": 1}}))
        run = mica("run", experiment)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stderr.count("longer than the 128 positions"), 1, run.stderr)

    def test_blocks_that_are_always_zero_are_coded(self):
        """An input channel, a head and a whole MLP whose inputs are zero get few bits and no complaint."""
        layer = "model.layers.1."
        dead = {"channel": [(layer + "input_layernorm.weight", 5, 1)], "head": [(layer + "self_attn.v_proj.weight", 0, 16 * 64)],
                "mlp": [(layer + "mlp.up_proj.weight", 0, None)], "norm": [(layer + "post_attention_layernorm.weight", 0, None)],
                "all": [(layer + "input_layernorm.weight", 0, None), (layer + "post_attention_layernorm.weight", 0, None)]}
        for name, edits in dead.items():
            model = self.folder / name
            shutil.copytree(self.model, model)
            for tensor, first, count in edits:
                edit(model, tensor, 0.0, first, count)
            for flags in ([], ["--coding", "entropy"], ["--sparsity", "0.5"], ["--pattern", "2:4"], ["--coding", "entropy", "--sparsity", "0.3"],
                          ["--damping", "0"]):
                with self.subTest(dead=name, flags=flags):
                    out = self.folder / "out"
                    self.succeed("compress", model, out, *self.calib, *FEW, "--bpw", 4, *flags)
                    report = read_json(out / "compression.json")
                    self.assertLessEqual(report["bits"]["bits_per_weight"], 4)
                    if name == "mlp" and not flags:
                        linears = report["layers"][1]["linears"]
                        self.assertEqual(linears["mlp.down_proj"]["mean_code_bits"], 2)
                        self.assertEqual(linears["mlp.down_proj"]["dead_channels"], 96)
                    shutil.rmtree(out)

    def test_values_beyond_sixteen_bits_are_refused_by_name(self):
        out = self.folder / "out"
        edit(self.model, "model.embed_tokens.weight", 70000.0, 64 * 9000 + 3, 1)
        self.fail_with("tensor model.embed_tokens.weight: row 9000, column 3 is 70000, but 16 bits (FP16) hold 65504", "compress", self.model, out,
                       *self.calib, *FEW, "--bits", 4, "--embedding-bits", 16)
        shutil.rmtree(out, ignore_errors=True)
        self.succeed("compress", self.model, out, *self.calib, *FEW, "--bits", 4)
        edit(self.model, "model.layers.0.mlp.gate_proj.weight", 70000.0, 64 * 3 + 7, 1)
        shutil.rmtree(out)
        # Not what makes up for the drift of the inputs, which may be smaller, but the weight itself.
        alone = ["--samples", "4", "--seqlen", "64", "--fisher-windows", "1", "--drift-compensation", "0"]
        self.fail_with("model.layers.0.mlp.gate_proj: weights: row 3, column 7 is ", "compress", self.model, out, *self.calib, *alone, "--bits", 16,
                       "--sparsity", 0.3)

    def test_texts_that_repeat_are_said(self):
        out = self.folder / "out"
        text = self.folder / "short.txt"
        text.write_text(self.text().read_text()[:2000])
        same = self.folder / "same.txt"
        same.write_text("A document of one sentence that stands here a thousand times, and says nothing new. " * 1000)
        for path in (text, same):
            done = mica("compress", self.model, out, "--calib", f"text={path}", "--samples", 64, "--seqlen", 64, "--fisher-windows", 1, "--bits", 4)
            self.assertEqual(done.returncode, 0, done.stderr)
            warnings = [line for line in done.stderr.splitlines() if "distinct" in line]
            self.assertEqual(len(warnings), 1, done.stderr)
            self.assertIn("4096 calibration tokens, of which only ", warnings[0])
            shutil.rmtree(out)
        enough = mica("compress", self.model, out, *self.calib, *FEW, "--bits", 4)
        self.assertNotIn("distinct", enough.stderr)

    def test_a_file_with_a_colon_is_found(self):
        (self.folder / "t:2").write_text(self.text().read_text())
        out = self.folder / "out"
        self.succeed("compress", self.model, out, "--calib", f"text={self.folder / 't:2'}", *FEW, "--bits", 4)
        source = read_json(out / "compression.json")["calibration"]["sources"][0]
        self.assertEqual((source["path"], source["weight"]), (str(self.folder / "t:2"), 1))

    def test_wrong_types_in_results_are_named(self):
        good = self.folder / "good.json"
        good.write_text(json.dumps({"wikitext2": {"ppl": 5.79, "time": 223}}))
        for figures, expected in (({"ppl": [5]}, '"ppl" is '), ({"ppl": 5, "time": "3:40"}, '"time" is "3:40"'),
                                  ({"ppl": 5, "windows": 2.5}, "expected a whole number"), ({"ppl": 5, "window_nll": "x"}, "expected an array"),
                                  ({"ppl": True}, '"ppl" is ')):
            odd = self.folder / "odd.json"
            odd.write_text(json.dumps({"wikitext2": figures}))
            self.fail_with(expected, "compare", good, odd)
            self.fail_with("odd.json, set wikitext2: ", "compare", odd, good)


if __name__ == "__main__":
    main()
