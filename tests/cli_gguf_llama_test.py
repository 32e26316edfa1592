"""GGUF files against llama.cpp: what mica writes it must read alike, what it quantises mica must read alike. Needs the npm
package node-llama-cpp (MICA_NODE_LLAMA names the node_modules directory it is in); without it the test is skipped."""
import json
import os
import pathlib
import sys

import llama_cpp
from program import DEMO, ProgramTest, main, mica

# The larger the model's rows, the more types there are: rows of the demo are no multiples of 256.
MODEL = pathlib.Path(os.environ.get("MICA_GGUF_MODEL", DEMO))
WINDOW, WINDOWS = 64, 8


class LlamaCpp(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.cpp = llama_cpp.LlamaCpp(llama_cpp.find()[0])

    def evaluate(self, model, *more):
        out = self.succeed("eval", model, "--data", f"text={self.text()}", "--seqlen", WINDOW, "--max-windows", WINDOWS, "--dtype",
                           "fp32", "--tokenizer", MODEL, "--json", *more)
        return json.loads(out)["datasets"]["text"]

    def export(self, *more):
        path = self.folder / "model.gguf"
        self.succeed("export", MODEL, "--to", "gguf", "-o", path, *more)
        return path

    def ids(self):
        return json.loads(self.succeed("tokenize", MODEL, self.text()))

    def compare(self, path):
        """Mean of |difference| of the two programs' nats a token, by window."""
        ids, ours = self.ids(), self.evaluate(path)["window_nll"]
        with llama_cpp.Model(self.cpp, path) as model:
            theirs = [sum(nats) / len(nats) for w in range(WINDOWS)
                      for nats in [model.nats(ids[w * WINDOW:(w + 1) * WINDOW])]]
        self.assertEqual(len(ours), WINDOWS)
        return sum(abs(a - b) for a, b in zip(ours, theirs)) / WINDOWS

    def test_a_written_file_is_read_alike(self):
        for dtype in ("fp16", "bf16", "fp32"):
            self.assertLess(self.compare(self.export("--dtype", dtype)), 0.01, dtype)

    def test_what_is_compressed_is_read_alike_and_goes_on_with_a_text(self):
        out = self.folder / "out"
        self.succeed("compress", MODEL, out, "--coding", "gguf", "--bpw", 5.0, "--preset", "fast",
                     "--calib", f"text={self.text('calib.txt', ['docs/method.md'])}", "--samples", 8, "--seqlen", 128)
        path = out / "model.gguf"
        self.assertLess(self.compare(path), 0.02)  # llama.cpp rounds activations to 8 bits
        with llama_cpp.Model(self.cpp, path) as model:
            self.assertEqual(len(model.generate(self.ids()[:16], 20)), 20)

    def test_the_vocabulary_is_the_same(self):
        text = "A number such as 1,234.5 and a caf\u00e9;  two blanks\n\tand \u4f60\u597d.\n"
        (self.folder / "words.txt").write_text(text, encoding="utf-8")
        with llama_cpp.Model(self.cpp, self.export()) as model:
            self.assertEqual(model.tokenize(text), json.loads(self.succeed("tokenize", MODEL, self.folder / "words.txt")))

    def test_its_quantised_files_are_read_alike(self):
        source = self.export("--dtype", "fp16")
        # The divergence that each may have, in nats a token, without an importance matrix.
        for ftype, most in [("Q4_K_M", 0.05), ("Q2_K", 1), ("Q6_K", 0.01), ("Q8_0", 0.002), ("IQ4_XS", 0.08), ("Q4_0", 0.2),
                            ("Q5_1", 0.05), ("Q3_K_M", 0.2), ("IQ4_NL", 0.1)]:
            path = self.folder / f"{ftype}.gguf"
            self.cpp.quantize(source, path, ftype)
            ours = self.evaluate(path, "--reference", MODEL)
            self.assertLess(ours["divergence"]["kl"], most, ftype)
            # llama.cpp rounds activations to 8 bits, which shows the more the coarser the weights are.
            difference = self.compare(path)
            self.assertLess(difference, 0.02 + 0.1 * most, ftype)
            print(f"{ftype}: KL {ours['divergence']['kl']:.5f}, llama.cpp differs by {difference:.5f} nats a token", file=sys.stderr)
            self.assertIn("GGUF", json.loads(self.succeed("inspect", path, "--json"))["layout"])


if __name__ == "__main__":
    folder, why = llama_cpp.find()
    if folder is None:
        print(f"SKIP: {why}")
        sys.exit(77)
    main()
