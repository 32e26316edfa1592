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
                     "--calib", f"text={self.text('calib.txt', ['dictionary'])}", "--samples", 8, "--seqlen", 128)
        path = out / "model.gguf"
        self.assertLess(self.compare(path), 0.02)  # llama.cpp rounds activations to 8 bits
        with llama_cpp.Model(self.cpp, path) as model:
            self.assertEqual(len(model.generate(self.ids()[:16], 20)), 20)

    def test_greedy_text_is_the_same(self):
        """Of the exported file. Where the two likeliest tokens are as likely as one another, either may come, and the texts part for good. Of a
        quantised file the texts part sooner: llama.cpp rounds activations to 8 bits there, mica does not, and logits differ by some tenths at most."""
        packed = self.folder / "packed"
        self.succeed("compress", MODEL, packed, "--coding", "gguf", "--bpw", 5.0, "--preset", "fast", "--calib",
                     f"text={self.text('calib.txt', ['dictionary'])}", "--samples", 8, "--seqlen", 128)
        exported = self.export("--dtype", "fp16")
        for path, tie in ((exported, 1e-3), (packed / "model.gguf", 0.3)):
            for prompt in ("The history of the city begins", "In the year 1900 he", "Water is", "She was born in London and"):
                told = json.loads(self.succeed("generate", path, "--prompt", prompt, "--max-tokens", 80, "--json", "--top", 1, "--tokenizer", MODEL,
                                               "--device", "cpu", "--log-level", "error"))
                ours = [token["id"] for token in told["tokens"]]
                self.assertGreaterEqual(len(ours), 64, prompt)
                with llama_cpp.Model(self.cpp, path, as_running=True) as model:
                    theirs = model.generate(model.tokenize(prompt), len(ours))
                parted = [(place, most - second) for place, (id, (other, most, second)) in enumerate(zip(ours, theirs)) if id != other][:1]
                print(f"{path.parent.name}, {prompt!r}: {len(ours)} tokens, parted (token, llama.cpp's logits apart): {parted}", file=sys.stderr)
                self.assertTrue(all(apart < tie for _, apart in parted), (path, prompt, parted))

    def test_the_vocabulary_is_the_same(self):
        text = "A number such as 1,234.5 and a caf\u00e9;  two blanks\n\tand \u4f60\u597d.\n"
        (self.folder / "words.txt").write_text(text, encoding="utf-8")
        with llama_cpp.Model(self.cpp, self.export()) as model:
            self.assertEqual(model.tokenize(text), json.loads(self.succeed("tokenize", MODEL, self.folder / "words.txt")))

    def byte_level(self, *expressions, merges=False):
        """A tokenizer.json that cuts by the expressions; merges: a word that is a token is taken whole."""
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        vocab = {chr(byte) if byte in printable else chr(256 + others.index(byte)): byte for byte in range(256)}
        pairs = ["t h", "th e", "\u0120 the", "1 2", "12 3", "\u010a \u010a", "' s", "\u0120 \u0120", "\u00c3 \u00a9"]
        for pair in pairs:
            vocab[pair.replace(" ", "")] = len(vocab)
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not expressions}
        steps = [{"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False} for e in expressions]
        added = [{"id": len(vocab) + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                  "normalized": False, "special": special} for i, (content, special) in enumerate((("<|end|>", True), ("<think>", False)))]
        return {"version": "1.0", "added_tokens": added, "normalizer": None, "post_processor": None, "decoder": level,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps + [level]},
                "model": {"type": "BPE", "ignore_merges": merges, "vocab": vocab, "merges": pairs}}

    def test_vocabularies_of_tokenizer_json_are_the_same(self):
        tail = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
        for name, tokenizer in (("gpt-2", self.byte_level()), ("qwen2", self.byte_level(words + r"|\p{N}|" + tail)),
                                ("llama-bpe", self.byte_level(words + r"|\p{N}{1,3}|" + tail, merges=True))):
            source, model = self.folder / f"of_{name}", self.folder / name
            source.mkdir()
            (source / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
            self.succeed("synthesize", model, "--tokenizer", source, "--vocab", 320, "--layers", 1, "--hidden", 32, "--ffn", 64, "--heads", 2)
            self.succeed("export", model, "--to", "gguf", "-o", self.folder / f"{name}.gguf")
            text = "The 1234 the's  there\n\n caf\u00e9 IT'S <think>x</think> <|end|> \u4f60\u597d \U0001f600  "
            (self.folder / "words.txt").write_text(text, encoding="utf-8")
            expected = json.loads(self.succeed("tokenize", model, self.folder / "words.txt"))
            self.assertEqual(json.loads(self.succeed("tokenize", self.folder / f"{name}.gguf", self.folder / "words.txt")), expected)
            with llama_cpp.Model(self.cpp, self.folder / f"{name}.gguf") as loaded:
                self.assertEqual(loaded.tokenize(text), expected, name)

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
