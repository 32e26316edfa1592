"""Where windows have the token that begins a text (BOS): the default of each tokenizer and model, --bos, what is recorded and compared."""
import json
import shutil

from program import ProgramTest, main, mica, read_json


class BosTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 64, "--ffn", 96, "--heads", 4)
        self.calib = self.text("calib.txt", ("dictionary",))
        self.eval = self.text("eval.txt", ("database",))

    def evaluate(self, name, *more, model=None):
        """The result of a model, in a file of this name."""
        out = self.folder / name
        self.succeed("eval", model or self.model, "--data", f"docs:text={self.eval}", "--seqlen", 64, "--max-windows", 4, "-o", out, *more)
        return out

    def compress(self, name, *more, model=None):
        """The record of a compression, and what was said."""
        out = self.folder / name
        done = mica("compress", model or self.model, out, "--calib", f"text={self.calib}", "--samples", 4, "--seqlen", 64, "--bits", 4, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return read_json(out / "compression.json"), done.stderr

    def without_bos(self):
        """The model with a tokenizer that puts none in front of a text, and one whose tokenizer has none at all."""
        adds_none, has_none = self.folder / "adds_none", self.folder / "has_none"
        for model in (adds_none, has_none):
            shutil.copytree(self.model, model)
        (adds_none / "tokenizer_config.json").write_text('{"add_bos_token": false}')
        (has_none / "tokenizer.model").unlink()
        (has_none / "tokenizer_config.json").unlink(missing_ok=True)
        # Each byte is a token, written as byte-level vocabularies write it.
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        vocabulary = {chr(byte) if byte in printable else chr(256 + others.index(byte)): byte for byte in range(256)}
        (has_none / "tokenizer.json").write_text(json.dumps({
            "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None, "decoder": {"type": "ByteLevel"},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}), encoding="utf-8")
        return adds_none, has_none

    def test_each_place_is_another_measurement(self):
        results = {place: read_json(self.evaluate(f"{place}.json", "--bos", place)) for place in ("text", "window", "none")}
        usual = read_json(self.evaluate("usual.json"))
        self.assertEqual(usual["settings"]["bos"], "text")
        self.assertEqual(usual["datasets"]["docs"]["window_nll"], results["text"]["datasets"]["docs"]["window_nll"])
        self.assertEqual({place: result["settings"]["bos"] for place, result in results.items()}, {p: p for p in results})
        first = {place: result["datasets"]["docs"]["window_nll"] for place, result in results.items()}
        self.assertEqual(first["text"][0], first["window"][0])  # which begins with BOS either way
        self.assertNotEqual(first["text"][1], first["window"][1])
        self.assertNotEqual(first["text"][0], first["none"][0])
        tokens = {place: result["datasets"]["docs"]["text_tokens"] for place, result in results.items()}
        self.assertEqual(tokens["text"], tokens["window"])
        self.assertEqual(tokens["text"], tokens["none"] + 1)
        files = {place: self.folder / f"{place}.json" for place in results}
        self.fail_with("bos text against window", "compare", files["text"], files["window"])
        self.fail_with("bos none against window", "compare", files["none"], files["window"])
        self.succeed("compare", files["text"], files["window"], "--force")
        self.succeed("compare", files["text"], self.folder / "usual.json")
        # A result from before the place was recorded.
        del usual["settings"]["bos"]
        (self.folder / "old.json").write_text(json.dumps(usual))
        report = self.succeed("compare", self.folder / "old.json", files["text"])
        self.assertIn("in front of the text", report)
        self.assertIn("文本开头一个", self.succeed("compare", files["text"], files["text"], "--lang", "zh"))
        self.fail_with("bos text against none", "compare", self.folder / "old.json", files["none"])

    def test_convention_llamacpp_has_it_in_every_window(self):
        results = [read_json(self.evaluate(f"{i}.json", "--convention", "llamacpp", *more)) for i, more in
                   enumerate(([], ["--bos", "text"], ["--bos", "window"], ["--bos", "none"]))]
        self.assertEqual([result["settings"]["bos"] for result in results], ["window", "window", "window", "none"])
        figures = [result["datasets"]["docs"]["ppl"] for result in results]
        self.assertEqual(figures[:1] * 3, figures[:3])
        self.assertNotEqual(figures[0], figures[3])

    def test_the_tokenizer_says_what_is_usual(self):
        adds_none, has_none = self.without_bos()
        self.assertEqual(read_json(self.evaluate("a.json", model=adds_none))["settings"]["bos"], "none")
        self.assertEqual(read_json(self.evaluate("b.json", "--bos", "text", model=adds_none))["settings"]["bos"], "text")
        self.assertEqual(read_json(self.evaluate("c.json", model=has_none))["settings"]["bos"], "none")
        self.assertEqual(read_json(self.evaluate("d.json", "--convention", "llamacpp", model=has_none))["settings"]["bos"], "none")
        self.assertEqual(self.compress("p", model=has_none)[0]["calibration"]["bos"], "none")
        for place in ("text", "window"):
            expected = f"--bos is {place}, but the tokenizer has no token that begins a text"
            self.fail_with(expected, "eval", has_none, "--data", f"text={self.eval}", "--bos", place)
            self.fail_with(expected, "compress", has_none, self.folder / "q", "--calib", f"text={self.calib}", "--bos", place)
        self.assertFalse((self.folder / "q").exists())

    def test_a_compression_says_where_its_windows_had_it(self):
        kept = ("--statistics", self.folder / "statistics")
        usual, _ = self.compress("usual", *kept)
        self.assertEqual(usual["calibration"]["bos"], "text")
        self.assertNotIn("bos", usual["settings"])
        said, stderr = self.compress("said", "--bos", "text", *kept)
        self.assertNotIn("collecting anew", stderr)
        self.assertEqual(said["layers"], usual["layers"])
        self.assertEqual(said["settings"]["bos"], "text")
        window, stderr = self.compress("window", "--bos", "window", *kept)
        self.assertIn("--bos text against window", stderr)
        self.assertNotEqual(window["layers"], usual["layers"])
        # A finished run is that of its place alone.
        self.compress("usual", "--bos", "text")
        self.fail_with("--bos text against none", "compress", self.model, self.folder / "usual", "--calib", f"text={self.calib}",
                       "--samples", 4, "--seqlen", 64, "--bits", 4, "--bos", "none")
        # What is repeated is repeated in the same place.
        self.succeed("compress", "--like", self.folder / "window", self.folder / "again")
        self.assertEqual(read_json(self.folder / "again" / "compression.json")["calibration"]["bos"], "window")
        results = self.evaluate("base.json"), self.evaluate("packed.json", model=self.folder / "window")
        self.assertIn("in each window", self.succeed("compare", *results))

    def test_an_experiment_sets_both(self):
        path = self.experiment(evaluate__bos="window", compress__bos="none")
        self.assertIn("ok", self.succeed("run", "--check", path))
        self.succeed("run", path)
        out = self.folder / "out"
        self.assertEqual(read_json(out / "baseline.json")["settings"]["bos"], "window")
        self.assertEqual(read_json(out / "packed" / "compression.json")["calibration"]["bos"], "none")
        self.fail_with("baseline.json: was made of something else: bos window against text", "run", self.experiment(compress__bos="none"))
        self.fail_with('"bos" is "front", expected text, window or none', "run", self.experiment(evaluate__bos="front"))
        refused = mica("run", "--check", self.experiment(compress__bos="none"))
        self.assertIn("bos window against text", refused.stdout)


if __name__ == "__main__":
    main()
