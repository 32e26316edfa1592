"""The text that models are calibrated on where none is given."""
import hashlib
import subprocess

from program import SOURCE, ProgramTest, main, mica, read_json

TEXT = SOURCE / "data" / "calibration.txt.zst"
SMALL = ("--samples", 4, "--seqlen", 64, "--bpw", 3)


class CalibrationTextTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 64, "--ffn", 96, "--heads", 4)

    def test_a_first_try_needs_no_text(self):
        out = self.folder / "out"
        self.succeed("compress", self.model, out, *SMALL)
        record = read_json(out / "compression.json")
        source, = record["calibration"]["sources"]
        self.assertEqual((source["kind"], source["path"], source["windows"]), ("built-in", "built-in", 4))
        self.assertEqual(record["settings"]["calib"], [{"kind": "built-in", "path": "built-in", "weight": 1.0}])
        text = subprocess.run(["zstd", "-dc", TEXT], check=True, capture_output=True).stdout
        self.assertEqual(source["sha256"], hashlib.sha256(text).hexdigest())
        # It is repeated, also by its name and as a file.
        self.succeed("compress", "--like", out, self.folder / "again")
        for name, calib in (("named", "built-in"), ("file", f"text={TEXT}")):
            self.succeed("compress", self.model, self.folder / name, *SMALL, "--calib", calib)
        for name in ("again", "named", "file"):
            other = read_json(self.folder / name / "compression.json")
            self.assertEqual(other["layers"], record["layers"])
            self.assertEqual(other["calibration"]["sources"][0]["sha256"], source["sha256"])

    def test_nothing_is_measured_on_it_that_was_calibrated_on_it(self):
        out = self.folder / "out"
        self.succeed("compress", self.model, out, *SMALL)
        evaluate = ("eval", out, "--data", f"text={TEXT}", "--seqlen", 64, "--max-windows", 1)
        self.fail_with("is a text this model was calibrated on (built-in)", *evaluate)
        self.succeed(*evaluate, "--force")
        self.fail_with("kind 'built-in'", "eval", out, "--data", "built-in=x")

    def test_it_mixes_with_others(self):
        out = self.folder / "out"
        self.succeed("compress", self.model, out, *SMALL, "--calib", "built-in:3", "--calib", f"text={self.text()}")
        self.assertEqual([source["windows"] for source in read_json(out / "compression.json")["calibration"]["sources"]], [3, 1])
        self.fail_with("built-in[:WEIGHT]", "compress", self.model, self.folder / "x", *SMALL, "--calib", "built-in:0")

    def test_experiments_without_a_text_use_it(self):
        self.text("eval.txt")
        path = self.experiment(compress={"budget": {"kind": "bits", "value": 4}, "samples": 4, "seqlen": 64})
        self.assertIn("built-in", self.succeed("run", "--check", path))
        report = self.succeed("run", path)
        self.assertRegex(report, r"calibration text +built-in\n")
        self.assertIn("内置文本", (self.folder / "out" / "comparison.zh.txt").read_text(encoding="utf-8"))
        self.fail_with("leave it out for the built-in text", "run", self.experiment(compress__calib=[]))

    def test_help_says_what_it_is(self):
        self.assertIn("built-in", mica("compress", "--help").stdout)


if __name__ == "__main__":
    main()
