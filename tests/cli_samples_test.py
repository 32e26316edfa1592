"""Samples of a run: what the models write, the tokens that lost most, speed and memory; kept, taken anew, left out."""
import json
import signal
import subprocess
import time

from program import DEMO, MICA, ProgramTest, main, mica, read_json


class SamplesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.text("calib.txt", ("dictionary",))
        self.eval = self.text("eval.txt", ("database",))
        self.out = self.folder / "out"

    def experiment(self, **changes):
        return super().experiment(**{"model": str(DEMO), "compress__budget": {"kind": "bits", "value": 2.5}, **changes})

    def samples(self):
        return read_json(self.out / "compressed.json")["samples"]

    def test_a_run_shows_what_the_models_write(self):
        prompts = ["The files of a package are", "Once\nupon a time"]
        experiment = self.experiment(samples={"prompts": prompts, "tokens": 12})
        report = self.succeed("run", experiment)
        samples = self.samples()
        self.assertEqual([text["prompt"] for text in samples["texts"]], prompts)
        parted = 0
        for prompt, text in zip(prompts, samples["texts"]):
            written = [json.loads(self.succeed("generate", model, "--prompt", prompt, "--max-tokens", 12, "--json"))
                       for model in (DEMO, self.out / "packed")]
            self.assertEqual(text["original"], written[0]["text"])
            tokens = [[token["id"] for token in one["tokens"]] for one in written]
            lengths = [int(length) for length in text["lengths"].split()]
            self.assertEqual(len(lengths), len(tokens[0]))
            self.assertEqual(sum(lengths), len(text["original"].encode()))
            self.assertEqual(len(text["kl"].split()), len(tokens[0]))
            if "parting" not in text:
                self.assertEqual(tokens[0], tokens[1])
                continue
            parted += 1
            same = text["parting"]
            self.assertEqual(tokens[0][:same], tokens[1][:same])
            self.assertNotEqual(tokens[0][same:same + 1], tokens[1][same:same + 1])
            self.assertEqual(text["original"].encode()[:sum(lengths[:same])].decode() + text["compressed"], written[1]["text"])
        self.assertGreater(parted, 0)  # at two and a half bits they do
        self.assertGreater(samples["kl"], 0)
        for model in ("original", "compressed"):
            self.assertGreater(samples[model]["generated"]["tokens_per_second"], 0)
            self.assertGreater(samples[model]["peak_memory_bytes"], samples[model]["weight_bytes"])
        self.assertLess(samples["compressed"]["weight_bytes"], samples["original"]["weight_bytes"])
        for word in ("Samples\n", "(given): they part at token", "Once↵upon a time", "generating: weights in memory", "▸"):
            self.assertIn(word, report)
        self.assertIn("生成样例", (self.out / "comparison.zh.md").read_text(encoding="utf-8"))
        html = (self.out / "comparison.html").read_text(encoding="utf-8")
        self.assertRegex(html, r'<span class="h[1-4]( parts)?" title="[0-9.]+ nats">')
        compared = self.succeed("compare", self.out / "baseline.json", self.out / "compressed.json")
        self.assertIn("Once↵upon a time", compared)
        self.assertEqual(read_json(self.out / "comparison.json")["samples"]["texts"], 2)

    def test_the_tokens_that_lost_most_are_of_the_text(self):
        self.succeed("run", self.experiment(samples={"count": 0}))
        found = read_json(self.out / "compressed.json")
        self.assertNotIn("samples", found)
        lost = found["datasets"]["docs"]["lost_tokens"]
        text = self.eval.read_text(encoding="utf-8")
        losses = [token["compressed"] - token["original"] for token in lost]
        self.assertEqual(len(lost), 10)
        self.assertEqual(losses, sorted(losses, reverse=True))
        self.assertGreater(losses[-1], 0)
        for token in lost:
            self.assertIn((token["context"] + token["token"]).strip(), text)
            self.assertGreater(len(token["token"]), 0)
        report = (self.out / "comparison.txt").read_text(encoding="utf-8")
        self.assertIn("The tokens that lost most", report)
        self.assertNotIn("prompts, continued", report)
        # Losses of something else are no losses of the baseline.
        (self.out / "baseline.losses").write_bytes(b"none")
        (self.out / "compressed.json").unlink()
        again = mica("run", self.experiment(samples={"count": 0}))
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("baseline.losses", again.stderr)
        self.assertNotIn("lost_tokens", read_json(self.out / "compressed.json")["datasets"]["docs"])

    def test_what_is_there_stays_and_what_differs_is_taken_anew(self):
        few = {"count": 2, "tokens": 3}
        self.succeed("run", self.experiment(samples=few))
        kept = [(self.out / name).read_bytes() for name in ("baseline.json", "compressed.json", "packed/compression.json")]
        first = self.samples()
        self.assertEqual([text["set"] for text in first["texts"]], ["docs", "docs"])
        self.assertNotEqual(first["texts"][0]["prompt"], first["texts"][1]["prompt"])
        text = self.eval.read_text(encoding="utf-8")
        for sample in first["texts"]:
            self.assertIn(sample["prompt"], text)
        self.succeed("run", self.experiment(samples=few))
        self.assertEqual([(self.out / name).read_bytes() for name in ("baseline.json", "compressed.json", "packed/compression.json")], kept)
        self.succeed("run", self.experiment(samples={"count": 3, "tokens": 3}))
        more = self.samples()
        self.assertEqual(more["texts"][:2], first["texts"])
        self.assertEqual(len(more["texts"]), 3)
        self.assertEqual((self.out / "baseline.json").read_bytes(), kept[0])
        self.assertEqual((self.out / "packed" / "compression.json").read_bytes(), kept[2])
        self.succeed("run", self.experiment(samples={"count": 0}))
        without = read_json(self.out / "compressed.json")
        self.assertNotIn("samples", without)
        before = json.loads(kept[1])
        before.pop("samples")
        self.assertEqual(without, before)
        self.assertNotIn("prompts, continued", (self.out / "comparison.txt").read_text(encoding="utf-8"))

    def test_ctrl_c_and_on(self):
        many = self.experiment(samples={"count": 100, "tokens": 256})
        process = subprocess.Popen([MICA, "run", many], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        status, stage = self.out / "status.json", None
        deadline = time.monotonic() + 300
        while stage != "samples" and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            stage = read_json(status).get("stage") if status.exists() else None
        self.assertEqual(stage, "samples")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertNotIn("samples", read_json(self.out / "compressed.json"))
        self.assertFalse((self.out / "comparison.json").exists())
        self.succeed("run", self.experiment(samples={"count": 1, "tokens": 2}))
        self.assertEqual(len(self.samples()["texts"]), 1)

    def test_bad_values_have_one_line(self):
        for samples, expected in (({"count": 101}, '"count" is 101, expected 0 to 100'), ({"tokens": 0}, '"tokens" is 0, expected 1 to 256'),
                                  ({}, '"samples": is empty'), ({"prompts": []}, "has 0 texts"), ({"prompt": ["a"]}, 'did you mean "prompts'),
                                  ({"prompts": ["a"], "count": 2}, "disagree"), ({"prompts": ["far " * 3000]}, "prompt 1 of the samples has")):
            with self.subTest(samples=samples):
                self.fail_with(expected, "run", self.experiment(samples=samples))
        self.assertFalse(self.out.exists())
        done = mica("ablate", self.experiment(samples={"count": 2}))
        self.assertEqual(done.returncode, 1)
        self.assertIn('"samples" are taken by mica run; an ablation takes none', done.stderr)


if __name__ == "__main__":
    main()
