"""GGUF files from the outside: written, inspected, evaluated, compared and compressed like the checkpoint they were made of."""
import json
import os
import shutil

from program import DEMO, ProgramTest, main, mica, read_json, same_bytes

QUICK = ["--seqlen", "64", "--max-windows", "2", "--dtype", "fp32"]
SMALL = ["--bits", "4", "--samples", "2", "--seqlen", "64"]


class GgufTest(ProgramTest):
    def export(self, name="demo.gguf", model=DEMO, *more):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        self.succeed("export", model, "--to", "gguf", "-o", path, *more)
        return path

    def evaluate(self, model, *more):
        return json.loads(self.succeed("eval", model, "--data", f"text={self.text()}", *QUICK, *more, "--json"))

    def test_a_file_is_the_checkpoint_it_was_made_of(self):
        path = self.export()
        original = self.evaluate(DEMO)
        # By the vocabulary inside, which makes the same tokens under another fingerprint.
        found = self.evaluate(path, "--reference", DEMO)
        self.assertEqual(found["datasets"]["text"]["window_nll"], original["datasets"]["text"]["window_nll"])
        self.assertEqual(found["datasets"]["text"]["bits_per_byte"], original["datasets"]["text"]["bits_per_byte"])
        self.assertEqual(found["datasets"]["text"]["divergence"]["kl"], 0)
        self.assertEqual(found["model"]["layout"], "GGUF, F16")
        self.assertNotEqual(found["model"]["tokenizer"], original["model"]["tokenizer"])
        self.assertEqual(found["datasets"]["text"]["data"]["tokens_sha256"], original["datasets"]["text"]["data"]["tokens_sha256"])
        self.assertEqual(self.succeed("tokenize", path, self.text()), self.succeed("tokenize", DEMO, self.text()))
        # By a tokenizer that is given, or lies beside it: by its own path or its directory's.
        for more in (["--tokenizer", DEMO], ["--tokenizer", path]):
            self.assertEqual(self.evaluate(path, *more)["datasets"]["text"]["nll"], original["datasets"]["text"]["nll"])
        shutil.copy(DEMO / "tokenizer.model", self.folder)
        self.assertEqual(self.evaluate(path)["model"]["tokenizer"], original["model"]["tokenizer"])
        self.assertEqual(self.evaluate(path)["datasets"]["text"]["nll"], original["datasets"]["text"]["nll"])
        self.assertEqual(self.evaluate(self.folder)["model"]["fingerprint"], found["model"]["fingerprint"])

    def test_inspect(self):
        path = self.export()
        shown = self.succeed("inspect", path)
        self.assertIn("16.000 (", shown)
        self.assertIn("ends            embedding F16, which is the head as well", shown)
        facts = json.loads(self.succeed("inspect", path, "--json"))
        original = json.loads(self.succeed("inspect", DEMO, "--json"))
        self.assertEqual(facts["parameters"], original["parameters"])
        self.assertEqual(facts["config"], original["config"])
        self.assertEqual(facts["decoder_matrices"]["bits_per_weight"], 16)
        self.assertEqual(facts["embedding"], "F16")
        self.assertIsNone(facts["head"])
        self.assertIn("blk.0.attn_q.weight", [tensor["name"] for tensor in facts["tensors"]])

    def test_compare(self):
        for name, model, more in (("a.json", DEMO, []), ("b.json", self.export(), ["--reference", DEMO])):
            self.succeed("eval", model, "--data", f"text={self.text()}", *QUICK, *more, "-o", self.folder / name)
        self.assertIn("100.0 %", self.succeed("compare", self.folder / "a.json", self.folder / "b.json"))

    def test_compressed_like_the_checkpoint(self):
        source = self.folder / "source"
        self.export("source/model.gguf")
        text = self.text("calib.txt", ["dictionary"])
        for model, name in ((DEMO, "of_hf"), (source, "of_gguf")):
            self.succeed("compress", model, self.folder / name, "--calib", f"text={text}", *SMALL)
        skipped = ("compression.json", "config.json", "tokenizer_config.json", "generation_config.json")
        differing = [name for name in same_bytes(self.folder / "of_hf", self.folder / "of_gguf", skipped)
                     if name.endswith(".safetensors") and "00001" not in name]  # norms are F32 in a GGUF file
        packed = self.evaluate(self.folder / "of_gguf")["datasets"]["text"]["nll"]
        self.assertEqual(packed, self.evaluate(self.folder / "of_hf")["datasets"]["text"]["nll"], differing)
        # Its vocabulary goes with it, wherever it goes: packed, plain, and back into a GGUF file with the decoded weights, exactly.
        self.succeed("export", self.folder / "of_gguf", self.folder / "plain", "--dtype", "fp32")
        exported = self.export("packed.gguf", self.folder / "of_gguf", "--dtype", "fp32")
        for model in (self.folder / "plain", exported):
            self.assertEqual(self.evaluate(model)["datasets"]["text"]["nll"], packed)
        vocabulary = [(self.folder / name / "tokenizer.gguf").read_bytes() for name in ("of_gguf", "plain")]
        self.assertEqual(vocabulary[0], vocabulary[1])
        self.fail_with('of type "vocab", expected "model"', "inspect", self.folder / "plain" / "tokenizer.gguf")

    def test_refusals(self):
        path = self.export()
        data = ["--data", f"text={self.text()}", *QUICK]
        self.succeed("synthesize", self.folder / "mute", "--vocab", 512, "--layers", 1, "--hidden", 32, "--ffn", 64, "--heads", 2)
        mute = self.export("mute.gguf", self.folder / "mute")
        self.fail_with("mute.gguf: holds no vocabulary", "eval", mute, *data)
        self.fail_with("mute.gguf: holds no vocabulary", "compress", mute, self.folder / "out", "--calib", f"text={self.text()}", *SMALL)
        self.assertFalse((self.folder / "out").exists())
        content = path.read_bytes()
        for length in (0, 100, len(content) // 3, len(content) - 100):
            path.write_bytes(content[:length])
            for command in (["inspect", path], ["eval", path, *data, "--tokenizer", DEMO], ["export", path, "--to", "gguf", "-o",
                                                                                          self.folder / "again.gguf"]):
                self.fail_with("demo.gguf", *command)
        self.assertFalse((self.folder / "again.gguf").exists())
        path.write_bytes(content.replace(b"llama.block_count", b"llama.block_cound"))
        self.fail_with("has no key llama.block_count", "eval", path, *data, "--tokenizer", DEMO)
        path.write_bytes(content.replace(b"blk.7.attn_q.weight", b"blk.7.attn_x.weight"))
        self.fail_with("tensor blk.7.attn_q.weight is missing", "inspect", path)
        path.write_bytes(content)
        self.fail_with("demo.gguf", "export", path, "--to", "gguf", "-o", path)
        self.fail_with("out is missing", "export", DEMO, "--to", "gguf", code=2)
        self.fail_with("give one of them", "export", DEMO, path, "--to", "gguf", "-o", self.folder / "b.gguf", code=2)
        self.fail_with("is not a packed checkpoint", "export", DEMO, self.folder / "hf")

    def test_experiments_check_it(self):
        self.export("model.gguf")
        self.text("eval.txt")
        self.text("calib.txt", ["dictionary"])
        experiment = self.experiment(model="model.gguf")
        shown = self.succeed("run", experiment, "--check")
        self.assertIn("GGUF, F16", shown)


if __name__ == "__main__":
    main()
