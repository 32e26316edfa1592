"""Nothing is used again that was made of something else, and what cannot work leaves nothing behind."""
import gzip
import json
import os
import shutil
import signal
import subprocess
import time

from program import MICA, ProgramTest, main, mica, read_json, same_bytes


def swap_pieces(path):
    """Another tokenizer of the same size: two words have changed places."""
    content = bytearray(path.read_bytes())
    one, other = b"\n\x06\xe2\x96\x81the", b"\n\x06\xe2\x96\x81and"
    first, second = content.find(one), content.find(other)
    content[first:first + 8], content[second:second + 8] = other, one
    path.write_bytes(content)


class IdentityTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 64, "--ffn", 96, "--heads", 4)
        self.calib = self.text("calib.txt", ("dictionary",))
        self.eval = self.text("eval.txt", ("database",))
        self.small = ("--calib", f"text={self.calib}", "--samples", 4, "--seqlen", 64)

    def evaluate(self, model, result, data=None):
        self.succeed("eval", model, "--data", f"docs:text={data or self.eval}", "--seqlen", 64, "--max-windows", 2,
                     "-o", self.folder / result)
        return self.folder / result

    def test_results_of_other_tokens_are_not_compared(self):
        other = self.folder / "other"
        shutil.copytree(self.model, other)
        swap_pieces(other / "tokenizer.model")
        one, two = self.evaluate(self.model, "1.json"), self.evaluate(other, "2.json")
        self.assertEqual(read_json(one)["model"]["fingerprint"], read_json(two)["model"]["fingerprint"])
        self.fail_with("tokens of docs ", "compare", one, two)
        self.fail_with("its tokenizer makes other tokens of", "eval", other, "--data", f"text={self.eval}", "--seqlen", 64,
                       "--reference", self.model)

    def test_a_text_is_the_same_in_every_container(self):
        packed = self.folder / "calib.gz"
        packed.write_bytes(gzip.compress(self.calib.read_bytes()))
        out = self.folder / "out"
        self.succeed("compress", self.model, out, *self.small, "--bits", 4)
        for kind, path in (("text", self.calib), ("text", packed), ("wikitext2", packed), ("ptb", self.calib)):
            self.fail_with("is a text this model was calibrated on", "eval", out, "--data", f"{kind}={path}", "--seqlen", 64)
        one, two = self.evaluate(self.model, "1.json", self.calib), self.evaluate(self.model, "2.json", packed)
        self.succeed("compare", one, two)
        # And a finished run with the text packed is the same run.
        self.succeed("compress", self.model, out, "--calib", f"text={packed}", *self.small[2:], "--bits", 4)

    def test_a_run_uses_nothing_of_other_inputs(self):
        self.succeed("run", self.experiment())
        baseline = (self.folder / "out" / "baseline.json").read_bytes()

        def same():  # in words that change nothing
            return self.experiment(name="renamed", evaluate__convention="gptq")

        self.succeed("run", same())
        self.assertEqual((self.folder / "out" / "baseline.json").read_bytes(), baseline)
        kept = self.eval.read_text(encoding="utf-8")
        self.eval.write_text(kept + "more", encoding="utf-8")
        self.fail_with("baseline.json: was made of something else: text of docs ", "run", same())
        self.eval.write_text(kept, encoding="utf-8")
        self.fail_with("seqlen 64 against 32", "run", self.experiment(evaluate__seqlen=32))
        self.fail_with("--bits 4", "run", self.experiment(compress__budget={"kind": "bits", "value": 3}))
        calib = self.calib.read_text(encoding="utf-8")
        self.calib.write_text(calib + "more", encoding="utf-8")
        self.fail_with("calibration text 1 ", "run", same())
        self.calib.write_text(calib, encoding="utf-8")
        weights = bytearray((self.model / "model.safetensors").read_bytes())
        weights[-2] ^= 1
        (self.model / "model.safetensors").write_bytes(weights)
        self.fail_with("model ", "run", same())
        weights[-2] ^= 1
        (self.model / "model.safetensors").write_bytes(weights)
        swap_pieces(self.model / "tokenizer.model")
        self.fail_with("tokenizer ", "run", same())
        swap_pieces(self.model / "tokenizer.model")
        config = read_json(self.model / "config.json")
        (self.model / "config.json").write_text(json.dumps(dict(reversed(config.items()), comment="not read")))
        self.succeed("run", same())
        status = self.succeed("status", self.folder / "out")
        for word in ("done", "compress", "peak memory"):
            self.assertIn(word, status)

    def test_an_ablation_uses_nothing_of_other_inputs(self):
        budget = {"kind": "bpw", "value": 3.6}
        shutil.rmtree(self.model)  # a smaller one: there are twenty variants
        self.succeed("synthesize", self.model, "--tokenizer", self.tokenizer, "--layers", 1, "--hidden", 64, "--ffn", 64, "--heads", 4)

        def same(**changes):
            return self.experiment(**{"compress__budget": budget, "evaluate__divergence": True, **changes})

        def figures():
            return {path.name: path.read_bytes() for path in (self.folder / "out").glob("*.json") if path.name not in ("status.json", "experiment.json")}

        def refused(expected, **changes):
            before = figures()
            self.fail_with(expected, "ablate", same(**changes))
            self.assertEqual(figures(), before)

        self.succeed("ablate", same())
        kept = figures()
        self.assertEqual(len(kept), 22)  # the variants, the baseline, the table
        self.succeed("ablate", same(name="renamed", compress__group_size=128))  # in words that change nothing
        self.assertEqual(figures(), kept)
        weights = (self.model / "model.safetensors").read_bytes()
        (self.model / "model.safetensors").write_bytes(weights[:-2] + bytes([weights[-2] ^ 1]) + weights[-1:])
        refused("model ")
        (self.model / "model.safetensors").write_bytes(weights)
        swap_pieces(self.model / "tokenizer.model")
        refused("tokenizer ")
        swap_pieces(self.model / "tokenizer.model")
        refused("seqlen 64 against 32", evaluate__seqlen=32)
        # As if it had been stopped in the middle of the variants: what is done is as strange to other inputs.
        last = ("spectral-knn-10-groups", "entropy-coding-steps-by-conditional-information")
        for name in last:
            shutil.rmtree(self.folder / "out" / name)
            (self.folder / "out" / f"{name}.json").unlink()
        (self.folder / "out" / "ablation.json").unlink()
        for path, name in ((self.eval, "baseline.json: was made of something else: text of docs "), (self.calib, "calibration text 1 ")):
            text = path.read_text(encoding="utf-8")
            path.write_text(text + "more", encoding="utf-8")
            refused(name)
            path.write_text(text, encoding="utf-8")
        refused("max windows 2 against 1", evaluate__max_windows=1)
        refused("seed 0 against 3", compress__seed=3)
        refused("--samples 4", compress__samples=5)
        refused("--damping 0.03 against 0.02", compress__damping=0.02)
        # Another budget has another width, hence another variant, before those that are there.
        refused("bpw", compress__budget={"kind": "bpw", "value": 3.5})
        self.succeed("ablate", same())
        again = figures()
        self.assertEqual({name for name in kept if again[name] != kept[name]}, {"ablation.json", *(f"{name}.json" for name in last)})

        def table(files):
            rows = json.loads(files["ablation.json"])["rows"]
            return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

        self.assertEqual(table(again), table(kept))

    def test_statistics_are_those_of_the_model_texts_tokenizer_and_arithmetic(self):
        kept = self.folder / "s.safetensors"

        def compress(out, *more):
            done = mica("compress", self.model, self.folder / out, *self.small, "--bits", 4, "--statistics", kept, *more)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stderr

        self.assertNotIn("collecting anew", compress("a"))
        self.assertNotIn("collecting anew", compress("b"))
        self.assertEqual(same_bytes(self.folder / "a", self.folder / "b"), [])
        self.assertIn("--dtype ", compress("c", "--dtype", "fp32"))
        swap_pieces(self.model / "tokenizer.model")
        self.assertIn("tokenizer ", compress("d"))

    def test_statistics_are_those_of_the_types_that_were_measured(self):
        model, kept = self.folder / "wide", self.folder / "s.safetensors"
        self.succeed("synthesize", model, "--layers", 2, "--hidden", 64, "--heads", 2, "--ffn", 160, "--max-positions", 256, "--tokenizer", self.tokenizer)

        def compress(out, types, bpw):
            done = mica("compress", model, self.folder / out, *self.small, "--coding", "gguf", "--gguf-types", types, "--bpw", bpw, "--statistics", kept)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stderr, r"predicted divergence [\d.e-]+ nats")
            return done.stderr

        self.assertNotIn("collecting anew", compress("one", "Q4_0", 4.5))
        self.assertNotIn("collecting anew", compress("again", "Q4_0", 4.5))
        self.assertIn("losses on grids", compress("other", "Q5_0", 5.5))

    def test_a_stopped_compression_goes_on_with_the_same_alone(self):
        base = ("--calib", f"text={self.calib}", "--samples", 300, "--seqlen", 64, "--bits", 3)
        out = self.folder / "out"
        process = subprocess.Popen([MICA, "compress", self.model, out, *map(str, base)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (out / ".work" / "shard-00002.json").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / "compression.json").exists():
            self.skipTest("it was faster than the signal")
        swap_pieces(self.model / "tokenizer.model")
        self.fail_with("tokenizer ", "compress", self.model, out, *base)
        swap_pieces(self.model / "tokenizer.model")
        self.fail_with("--seed 0 against 1", "compress", self.model, out, *base, "--seed", 1)
        self.succeed("compress", self.model, out, *base)
        self.succeed("compress", self.model, self.folder / "fresh", *base)
        self.assertEqual(same_bytes(out, self.folder / "fresh"), [])
        self.fail_with("holds a finished run of another kind: --bits 3", "compress", self.model, out, *base[:-1], 4)

    def test_what_cannot_work_leaves_nothing(self):
        out = self.folder / "out"
        config = read_json(self.model / "config.json")

        def refused(expected, *arguments, change=None):
            (self.model / "config.json").write_text(json.dumps({**config, **(change or {})}))
            self.fail_with(expected, *arguments)
            self.assertFalse(out.exists(), sorted(out.iterdir()) if out.exists() else "")
            (self.model / "config.json").write_text(json.dumps(config))

        compress = ("compress", self.model, out, *self.small, "--bits", 4)
        refused("yarm", *compress, change={"rope_scaling": {"rope_type": "yarm", "factor": 4.0}})
        refused("s.safetensors", *compress, "--statistics", self.folder / "absent" / "s.safetensors")
        refused("calib.txt", *compress, "--statistics", self.calib)
        refused("never.txt", "compress", self.model, out, "--calib", "text=never.txt", "--bits", 4)
        for change in ({"evaluate__data": [{"kind": "text", "name": "docs", "path": "evil.txt"}]},
                       {"compress__calib": [{"kind": "text", "path": "evil.txt"}]}):
            refused("evil.txt", "run", self.experiment(**change))
        refused("yarm", "run", self.experiment(), change={"rope_scaling": {"rope_type": "yarm", "factor": 4.0}})
        self.succeed(*compress)  # the corrected command

    def test_a_dead_run_is_not_called_running(self):
        out = self.folder / "out"
        out.mkdir()
        (out / "status.json").write_text(json.dumps({"pid": os.getpid(), "stage": "compress", "phase": "compress", "done": 1, "total": 2}))
        self.assertIn("stopped", self.succeed("status", out))
        done = subprocess.run([MICA, "status", out, "--watch"], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0)


if __name__ == "__main__":
    main()
