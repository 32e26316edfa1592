"""mica run --check: a line for all that an experiment needs, exit code 1 where something is wrong; the experiments that
are shipped, on a model of their layout."""
import gzip
import json
import shutil

from program import DEMO, SOURCE, ProgramTest, main, mica, read_json

PUBLISHED = sorted((SOURCE / "experiments").glob("*.json"), key=lambda path: path.stem)


def lines_of(tree):
    """What lies in a directory: names, sizes and times."""
    return sorted((str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in tree.rglob("*"))


class CheckTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.text("calib.txt", ("dictionary",))
        self.text("eval.txt", ("database",))

    def experiment(self, **changes):
        return super().experiment(**{"model": str(DEMO), **changes})

    def small_model(self, *arguments):
        model = self.folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        self.succeed("synthesize", model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 64, "--ffn", 96, "--heads", 4, *arguments)
        return model

    def check(self, experiment, *arguments, code=0):
        """Checks twice, as text and as JSON; nothing is written. Returns the lines that are not ok, {check: [text]}."""
        before = lines_of(self.folder)
        shown = mica("run", experiment, "--check", *arguments)
        done = mica("run", experiment, "--check", "--json", *arguments)
        self.assertEqual(lines_of(self.folder), before)
        self.assertEqual((shown.returncode, done.returncode), (code, code), shown.stdout + shown.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["ok"], code == 0)
        for line in result["checks"]:
            self.assertRegex(shown.stdout, rf"(?m)^{line['state']} +{line['check']} ")
        wrong = {}
        for line in result["checks"]:
            if line["state"] == "WRONG":
                wrong.setdefault(line["check"], []).append(line["text"])
        self.assertEqual(bool(wrong), code == 1)
        self.states = {line["check"]: (line["state"], line["text"]) for line in result["checks"]}
        self.stages = {stage["stage"]: stage["text"] for stage in result["stages"]}
        return wrong

    def refused(self, check, expected, experiment):
        wrong = self.check(experiment, code=1)
        self.assertEqual(list(wrong), [check])
        self.assertIn(expected, wrong[check][0])

    def test_all_is_well(self):
        self.check(self.experiment(expect={"layers": 8, "hidden": read_json(DEMO / "config.json")["hidden_size"], "dtype": "fp16",
                                           "lines": {"eval.txt": (self.folder / "eval.txt").read_text().count("\n")}}))
        self.assertIn("2 windows of 64", self.states["text docs"][1])
        self.assertIn("4 windows of 64", self.states["calibration text"][1])
        self.assertEqual(self.states["samples"], ("ok", "12 prompts, 32 tokens behind each"))
        for check in ("options", "weights", "expected model", "tokenizer", "texts differ", "budget", "memory, measuring", "memory, compressing",
                      "disk", "directory"):
            self.assertEqual(self.states[check][0], "ok", check)
        self.assertEqual(self.stages, dict.fromkeys(("baseline", "compress", "evaluate", "samples", "compare"), "to do"))

    def test_each_fault_has_its_line(self):
        one = {"kind": "text", "path": "eval.txt", "name": "docs"}
        for check, expected, changes in (
                ("options", "--lambda changes nothing", {"compress__lambda": 0.5}),
                ("text docs", "none.txt: is missing; put the file", {"evaluate__data": [{**one, "path": "none.txt"}]}),
                ("text docs", "fewer than one window of 1000000", {"evaluate__seqlen": 1000000}),
                ("text docs", "line 1 is not valid JSON", {"evaluate__data": [{**one, "kind": "c4"}]}),
                ("text docs", "lines, the experiment expects 7; fetch the file", {"expect": {"lines": {"eval.txt": 7}}}),
                ("calibration text", "at least one window of 1000000", {"compress__seqlen": 1000000}),
                ("calibration", "--samples is 1, expected at least 2",
                 {"compress__samples": 1, "compress__calib": [{"path": "calib.txt"}, {"path": "eval.txt"}]}),
                ("texts differ", "calib.txt: is calibration text and evaluation text (docs)", {"evaluate__data": [{**one, "path": "calib.txt"}]}),
                ("budget", "--bits is 1", {"compress__budget": {"kind": "bits", "value": 1}}),
                ("expected model", "layers 8 instead of 40; dtype fp16 instead of bf16", {"expect": {"layers": 40, "dtype": "bf16"}}),
                ("samples", "prompt 2 of the samples has ", {"samples": {"prompts": ["one", "two " * 3000]}}),
                ("directory", "is not empty and holds no experiment", {"directory": "."}),
                ("directory", "is not a directory", {"directory": "eval.txt/run"}),
                ("directory", "is the same as", {"directory": str(DEMO)})):
            with self.subTest(expected=expected):
                experiment = self.experiment(**changes)
                wrong = self.check(experiment, code=1)
                self.assertIn(check, wrong)
                self.assertIn(expected, wrong[check][0])
                run = mica("run", experiment)
                self.assertEqual(run.returncode, 1)  # what the check calls wrong is refused
                self.assertFalse((self.folder / "out").exists())
        self.check(self.experiment(evaluate__data=[{**one, "path": "calib.txt"}], force=True))
        self.fail_with('"lines" names', "run", self.experiment(expect={"lines": {"other.txt": 1}}), "--check")
        self.fail_with('unknown key "layer"', "run", self.experiment(expect={"layer": 1}), "--check")

    def test_faults_of_a_model(self):
        model = self.small_model("--shard-bytes", "40kB", "--format", "bin")
        experiment = self.experiment(model="model")
        self.check(experiment)
        shards = sorted(model.glob("*.bin"))
        self.assertGreater(len(shards), 2)
        (model / "tokenizer.model").unlink()
        for shard in shards[:2]:
            shard.unlink()
        wrong = self.check(experiment, code=1)
        self.assertEqual(sorted(wrong), ["tokenizer", "weights"])
        self.assertEqual([shard.name in line for shard, line in zip(shards, wrong["weights"])], [True, True])
        self.assertIn("memory", self.states["not checked"][1])
        model = self.small_model()
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
        self.refused("weights", "model.safetensors", experiment)
        (self.small_model() / "config.json").write_text("{}")
        self.assertIn("config.json", self.check(experiment, code=1))
        shutil.rmtree(model)
        self.refused("model directory", "does not exist", experiment)

    def test_too_little_memory(self):
        self.refused("memory, compressing", "use fewer", self.experiment(compress__samples=16000000))

    def test_what_is_finished(self):
        self.small_model()
        experiment = self.experiment(model="model")
        self.succeed("run", experiment)
        self.check(experiment)
        self.assertEqual(set(self.stages.values()), {"finished before"})
        (self.folder / "out" / "comparison.json").unlink()
        (self.folder / "out" / "compressed.json").unlink()
        self.check(experiment)
        self.assertEqual([self.stages[stage] for stage in ("baseline", "evaluate", "samples", "compare")],
                         ["finished before", "to do", "to do", "to do"])
        self.check(self.experiment(model="model", samples={"count": 0}))
        self.assertNotIn("samples", self.stages)
        # Another window: the baseline is of something else, as mica run says.
        other = self.experiment(model="model", evaluate__seqlen=32)
        wrong = self.check(other, code=1)
        self.assertIn("seqlen 64 against 32", wrong["kept baseline.json"][0])
        self.assertEqual(self.states["directory"][0], "note")
        self.fail_with("seqlen 64 against 32", "run", other)

    def test_expectations_hold_for_a_run(self):
        self.small_model()
        self.fail_with("layers 2 instead of 3", "run", self.experiment(model="model", expect={"layers": 3}))
        self.fail_with("the experiment expects 3", "run", self.experiment(model="model", expect={"lines": {"calib.txt": 3}}))
        self.assertFalse((self.folder / "out").exists())


class PublishedTest(CheckTest):
    def setUp(self):
        ProgramTest.setUp(self)
        self.place = self.folder / "experiments"
        self.place.mkdir()
        for path in PUBLISHED:
            shutil.copy(path, self.place)

    # Not again for these.
    test_all_is_well = test_each_fault_has_its_line = test_faults_of_a_model = test_too_little_memory = None
    test_what_is_finished = test_expectations_hold_for_a_run = None

    def test_an_empty_directory_says_what_is_missing(self):
        self.assertEqual([path.stem for path in PUBLISHED], ["vicuna-13b", "vicuna-13b-small"])
        for path in PUBLISHED:
            wrong = self.check(self.place / path.name, code=1)
            said = [line for lines in wrong.values() for line in lines]
            for name in ("vicuna-13b-v1.5: does not exist", "wiki.test.raw: is missing", "ptb.test.txt: is missing",
                         "c4-validation.00000-of-00008.json.gz: is missing", "c4-train.00000-of-01024.json.gz: is missing"):
                self.assertEqual(len([line for line in said if name in line]), 1, said)
            self.assertEqual(len(said), 5, said)

    def shrunken(self, path, windows):
        """The experiment on a model of two layers and little text, the published layout and settings kept."""
        content = read_json(path)
        content["evaluate"].update(seqlen=64, max_windows=windows)
        content["compress"].update(samples=4, seqlen=64)
        content["expect"] = {"layers": 2, "hidden": 64, "vocabulary": 32000, "dtype": "fp16", "lines": content["expect"]["lines"]}
        return content

    def test_both_run_on_a_model_of_that_layout(self):
        model = self.place / "vicuna-13b-v1.5"
        self.succeed("synthesize", model, "--preset", "vicuna-13b", "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 64, "--ffn", 160, "--heads", 4,
                     "--format", "bin", "--shard-bytes", "4MB")
        self.assertEqual(sorted(p.name for p in model.glob("pytorch_model*")),
                         [f"pytorch_model-0000{i}-of-00003.bin" for i in (1, 2, 3)] + ["pytorch_model.bin.index.json"])
        # The very experiment knows that this is not its model.
        data = self.place / "data"
        data.mkdir()
        words = (SOURCE / "docs" / "architecture.md").read_text().split()
        rows = [" ".join(words[i % 300:i % 300 + 8]) for i in range(4358)]
        (data / "wiki.test.raw").write_text("".join(f" {row} \n" for row in rows))
        (data / "ptb.test.txt").write_text("".join(f" {row.lower()} \n" for row in rows[:3761]))
        for name, first in (("c4-validation.00000-of-00008", 40), ("c4-train.00000-of-01024", 400)):
            documents = [json.dumps({"text": " ".join(words[first + i:first + i + 90]), "url": "u", "timestamp": "t"}) for i in range(200)]
            with gzip.open(data / f"{name}.json.gz", "wt") as file:
                file.write("\n".join(documents) + "\n")
        for path in PUBLISHED:
            wrong = self.check(self.place / path.name, code=1)
            self.assertIn("layers 2 instead of 40; hidden 64 instead of 5120; parameters", wrong["expected model"][0])
            self.assertNotIn("text wikitext2", wrong)
            experiment = self.place / path.name
            experiment.write_text(json.dumps(self.shrunken(path, 3)))
            self.check(experiment)
            result = json.loads(self.succeed("run", experiment, "--json"))
            self.assertEqual(list(result["datasets"]), ["wikitext2", "ptb", "c4"])
            packed = read_json(self.folder / "runs" / path.stem / "packed" / "compression.json")
            if path.stem == "vicuna-13b":
                self.assertAlmostEqual(packed["bits"]["mean_code_bits"], 4.0, delta=0.05)
                self.assertAlmostEqual(packed["bits"]["zero_share"], 0.5, delta=0.01)
            else:
                self.assertAlmostEqual(packed["bits"]["bits_per_weight"], 3.2, delta=0.05)


if __name__ == "__main__":
    main()
