"""Budgets stated as quality: --max-kl and --min-retention, and the same in experiments."""
import json
import math
import random
import shlex
import shutil
import signal
import subprocess
import time

from program import DEMO, MICA, ProgramTest, main, read_json, same_bytes


class QualityTest(ProgramTest):
    """On models/demo, with little calibration and a few windows."""

    def setUp(self):
        super().setUp()
        self.text("calib.txt", ("novels",))
        self.eval = self.text("eval.txt", ("database",))
        self.calib = ("--calib", f"text={self.folder / 'calib.txt'}", "--samples", 4, "--seqlen", 256, "--fisher-windows", 2,
                      "--preset", "fast")

    def compress(self, out, *arguments):
        return json.loads(self.succeed("compress", DEMO, out, *self.calib, "--data", f"docs:text={self.eval}", "--max-windows", 2,
                                       "--json", *arguments))

    def test_the_smallest_file_below_a_divergence(self):
        for value in (0.1, 0.03):
            out = self.folder / f"kl{value}"
            record = self.compress(out, "--coding", "entropy", "--max-kl", value)
            quality = record["quality"]
            self.assertEqual((quality["kind"], quality["aimed"], quality["set"]), ("kl", value, "docs"))
            self.assertLessEqual(len(quality["trials"]), 3)
            # Measured once more from the packed file.
            result = json.loads(self.succeed("eval", out, "--data", f"docs:text={self.eval}", "--max-windows", 2, "--reference", DEMO, "--json"))
            self.assertAlmostEqual(result["datasets"]["docs"]["divergence"]["kl"], quality["measured"], 12)
            self.assertLessEqual(quality["measured"], value)
            self.assertGreaterEqual(quality["measured"], 0.8 * value, "two windows after little calibration follow no law closely")
            self.assertEqual(read_json(out / "compression.json")["quality"], quality)
            self.assertFalse((self.folder / f"kl{value}.search").exists())
            tried = {trial["budget"]: trial for trial in quality["trials"]}
            self.assertIn(record["settings"]["budget"]["value"], tried)
            self.assertEqual(tried[record["settings"]["budget"]["value"]]["measured"], quality["measured"])
        # The same command finds it done; another promise is another file.
        before = (out / "compression.json").stat().st_mtime_ns
        self.assertEqual(self.compress(out, "--coding", "entropy", "--max-kl", 0.03)["quality"], quality)
        self.assertEqual((out / "compression.json").stat().st_mtime_ns, before)
        self.fail_with("did not aim at a KL of at most 0.02", "compress", DEMO, out, *self.calib, "--coding", "entropy", "--max-kl", 0.02,
                       "--data", f"docs:text={self.eval}", "--max-windows", 2)
        self.fail_with("measured in another way: max windows 2 against 1", "compress", DEMO, out, *self.calib, "--coding", "entropy",
                       "--max-kl", 0.03, "--data", f"docs:text={self.eval}", "--max-windows", 1)
        # As it would have been with the budget that was found.
        self.succeed("compress", DEMO, self.folder / "plain", *self.calib, "--coding", "entropy", "--bpw", record["settings"]["budget"]["value"])
        self.assertEqual(same_bytes(out, self.folder / "plain"), [])

    def test_retention_and_what_is_said(self):
        out = self.folder / "out"
        printed = self.succeed("compress", DEMO, out, *self.calib, "--min-retention", 90, "--data", f"docs:text={self.eval}", "--max-windows", 2)
        quality = read_json(out / "compression.json")["quality"]
        self.assertRegex(printed, r"quality +aimed at a retention of at least 90 %: \d+\.\d\d % on docs, [1-6] compressions?")
        for model, name in ((DEMO, "base"), (out, "small")):
            self.succeed("eval", model, "--data", f"docs:text={self.eval}", "--max-windows", 2, "-o", self.folder / f"{name}.json")
        nll = [read_json(self.folder / f"{name}.json")["datasets"]["docs"]["nll"] for name in ("base", "small")]
        self.assertAlmostEqual(quality["measured"], 100 * (2 - math.exp(nll[1] - nll[0])), 9)
        self.assertGreaterEqual(quality["measured"], 90)
        report = self.succeed("compare", self.folder / "base.json", self.folder / "small.json")
        self.assertIn("Aimed at a retention of at least 90 %", report.replace("\n ", ""))

    def test_files_for_llama_cpp(self):
        out = self.folder / "x.gguf"
        record = self.compress(out, "--coding", "gguf", "--max-kl", 0.1)
        self.assertEqual(record["settings"]["budget"]["kind"], "bpw")
        self.assertLessEqual(record["quality"]["measured"], 0.1)
        self.assertEqual(sorted(p.name for p in self.folder.glob("x.gguf*")), ["x.gguf", "x.gguf.json"])

    def test_what_cannot_be(self):
        data = ("--data", f"docs:text={self.eval}", "--max-windows", 1)
        out = self.folder / "out"
        self.fail_with("cannot be reached: the best is", "compress", DEMO, out, *self.calib, "--bit-options", "2,3", "--max-kl", 1e-5, *data)
        self.fail_with("is calibration text and evaluation text", "compress", DEMO, out, *self.calib, "--max-kl", 0.1, "--data",
                       f"text={self.folder / 'calib.txt'}", "--max-windows", 1)
        self.fail_with("more than one budget; give one of", "compress", DEMO, out, *self.calib, "--bits", 4, "--max-kl", 0.1, *data)
        self.fail_with("more than one budget; give one of", "compress", DEMO, out, *self.calib, "--min-retention", 95, "--max-kl", 0.1, *data)
        self.fail_with("--max-windows changes nothing without", "compress", DEMO, out, *self.calib, "--bits", 4, "--max-windows", 3)
        self.fail_with("--data is missing", "compress", DEMO, out, *self.calib, "--max-kl", 0.1, code=2)
        self.assertEqual([p.name for p in self.folder.glob("out*")], [])

    def test_a_killed_search_ends_in_the_same_bytes(self):
        arguments = ["compress", DEMO, self.folder / "out", *self.calib, "--coding", "entropy", "--max-kl", 0.05, "--data",
                     f"docs:text={self.eval}", "--max-windows", 1]
        began = time.monotonic()
        self.succeed(*arguments)
        seconds = time.monotonic() - began
        (self.folder / "out").rename(self.folder / "whole")
        random.seed(2)
        stops = 0
        for _ in range(4):
            process = subprocess.Popen([MICA, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(timeout=random.uniform(0.1, 0.5) * seconds)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL if stops % 2 else signal.SIGINT)
                process.wait()
                stops += 1
        self.assertGreater(stops, 0)
        self.succeed(*arguments)
        self.assertEqual(same_bytes(self.folder / "whole", self.folder / "out"), [])


class ExperimentTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.succeed("synthesize", self.folder / "model", "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 256, "--ffn", 384, "--heads", 4)
        self.text("calib.txt", ("dictionary",))
        self.text("eval.txt", ("database",))

    def test_run(self):
        experiment = self.experiment(compress__budget={"kind": "kl", "value": 0.002}, compress__coding="entropy")
        self.succeed("run", experiment, "--check")
        comparison = json.loads(self.succeed("run", experiment, "--json"))
        quality = read_json(self.folder / "out" / "packed" / "compression.json")["quality"]
        self.assertEqual(quality["measured"], comparison["datasets"]["docs"]["divergence"]["kl"])
        self.assertLessEqual(quality["measured"], 0.002)
        result = read_json(self.folder / "out" / "compressed.json")
        self.assertEqual(result["model"]["path"], str(self.folder / "out" / "packed"))
        self.assertFalse((self.folder / "out" / "search").exists())
        self.assertEqual(json.loads(self.succeed("run", experiment, "--json"))["datasets"], comparison["datasets"])
        self.assertIn("KL of at most 0.002", (self.folder / "out" / "comparison.md").read_text())

    def test_sweep(self):
        experiment = self.experiment(evaluate__divergence=True, sweep={"budget": {"kind": "kl", "value": [0.004, 0.002]}, "keep": "none"})
        points = json.loads(self.succeed("sweep", experiment, "--json"))["points"]
        for point in points:
            self.assertLessEqual(point["kl"], point["settings"]["kl"])
        self.assertGreater(points[1]["bytes"], points[0]["bytes"])
        self.assertEqual(json.loads(self.succeed("sweep", experiment, "--json"))["points"], points)


if __name__ == "__main__":
    main()
