"""mica ablate and --preset from the outside."""
import json
import math
import random
import shutil
import signal
import subprocess
import time

from program import MICA, ProgramTest, main, read_json, same_bytes


class AblateTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 256, "--ffn", 384, "--heads", 4)
        self.text("calib.txt", ("dictionary",))
        self.text("eval.txt", ("database",))

    def experiment(self, **budget):
        path = self.folder / "experiment.json"
        path.write_text(json.dumps({
            "name": "ablation", "model": "model", "directory": "out",
            "evaluate": {"data": [{"kind": "text", "name": "docs", "path": "eval.txt"}], "seqlen": 128, "max_windows": 2,
                         "divergence": True},
            "compress": {"budget": budget, "samples": 4, "seqlen": 128, "group_size": 64, "fisher_windows": 2,
                         "calib": [{"kind": "text", "path": "calib.txt"}]}}))
        return path

    def test_every_variant_at_equal_stored_bits(self):
        experiment = self.experiment(kind="bpw", value=3.6)
        began = time.monotonic()
        printed = self.succeed("ablate", experiment)
        seconds = time.monotonic() - began
        table = read_json(self.folder / "out" / "ablation.json")
        self.assertEqual(len(table["rows"]), 20)
        baseline = read_json(self.folder / "out" / "baseline.json")["datasets"]["docs"]["ppl"]
        names = [row["variant"] for row in table["rows"]]
        self.assertEqual(len(set(names)), 20)
        for row in table["rows"]:
            self.assertIn(row["variant"], printed)
            self.assertLessEqual(row["bits_per_weight"], 3.6)
            if not row["variant"].startswith("one width"):
                self.assertGreater(row["bits_per_weight"], 3.59, row["variant"])
            found = row["datasets"]["docs"]
            self.assertAlmostEqual(found["excess_nats"], math.log(found["ppl"] / baseline), 9)
            self.assertEqual((row["mean_excess_nats"], row["mean_kl"]), (found["excess_nats"], found["kl"]))  # there is one text
            self.assertIn(f"{found['kl']:.5f}", printed)
            self.assertGreater(found["kl"], 0)
        self.assertNotIn("reference", read_json(self.folder / "out" / "baseline.json"))
        by_name = {row["variant"]: row["datasets"]["docs"]["ppl"] for row in table["rows"]}
        self.assertEqual(len({by_name[name] for name in ("weights only", "energy only", "conditional information")}), 3)
        # A second call reads everything back.
        self.assertEqual(json.loads(self.succeed("ablate", experiment, "--json")), table)
        self.check_stopped("ablate", experiment, "ablation.json", seconds)

    def test_options_without_effect_are_refused(self):
        for command, key, value, message in (("run", "lambda", 0.5, "--lambda changes nothing with --coding fixed"),
                                             ("ablate", "grouping", "kmeans", "--grouping is what the variants")):
            experiment = self.experiment(kind="bpw", value=3.6)
            content = read_json(experiment)
            content["compress"][key] = value
            experiment.write_text(json.dumps(content))
            self.fail_with(message, command, experiment)
            self.assertFalse((self.folder / "out").exists())

    def test_a_stopped_experiment_goes_on(self):
        experiment = self.experiment(kind="bpw", value=3.6)
        began = time.monotonic()
        comparison = json.loads(self.succeed("run", experiment, "--json"))
        self.assertGreater(comparison["datasets"]["docs"]["divergence"]["kl"], 0)
        self.check_stopped("run", experiment, "comparison.json", time.monotonic() - began)

    def check_stopped(self, command, experiment, result, seconds):
        """The experiment that just took `seconds` once more, killed and interrupted at random places: it must end in the same figures."""
        random.seed(3)
        whole, again = self.folder / "whole", self.folder / "out"
        again.rename(whole)
        stops = 0
        while stops < 6:
            process = subprocess.Popen([MICA, command, str(experiment), "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(timeout=random.uniform(0.1, 0.6) * seconds)
                if stops > 0:
                    break
                shutil.rmtree(again)  # it was faster this time
                seconds /= 2
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL if stops % 2 else signal.SIGINT)
                process.wait()
                stops += 1
        self.succeed(command, experiment, "--json")
        self.assertEqual(self.figures(again / result), self.figures(whole / result))

    def figures(self, path):
        """What must not depend on when a run was stopped: every perplexity, bit and share of the result."""
        def keep(value):
            if isinstance(value, dict):
                return {key: keep(item) for key, item in value.items() if key not in ("seconds", "time", "tokens_per_second", "peak_memory_bytes")}
            return [keep(item) for item in value] if isinstance(value, list) else value
        return keep(read_json(path))

    def test_needs_a_budget_of_stored_bits(self):
        self.fail_with('"kind": "bpw"', "ablate", self.experiment(kind="bits", value=4.0))

    def test_presets_set_what_no_flag_says(self):
        base = ("--calib", f"text={self.folder / 'calib.txt'}", "--samples", 40, "--calib-seqlen", 128, "--coding", "entropy", "--bpw", 3)
        reports = {}
        for preset in ("fast", "balanced", "best"):
            out = self.folder / preset
            reports[preset] = json.loads(self.succeed("compress", self.model, out, *base, "--preset", preset, "--json"))["settings"]
        self.assertEqual([reports[p]["trellis"] for p in reports], [False, True, True])
        self.assertEqual([reports[p]["row_feedback"] for p in reports], [False, True, True])
        self.assertEqual([reports[p]["drift_compensation"] for p in reports], [0, 0.5, 0.5])
        self.succeed("compress", self.model, self.folder / "none", *base)
        self.assertEqual(same_bytes(self.folder / "none", self.folder / "balanced"), [])
        mixed = json.loads(self.succeed("compress", self.model, self.folder / "mixed", *base, "--preset", "best", "--trellis", "false", "--json"))
        self.assertFalse(mixed["settings"]["trellis"])
        self.assertEqual(mixed["settings"]["fisher_windows"], reports["best"]["fisher_windows"])
        # More windows than the statistics are collected from: every token still has its weight.
        self.succeed("compress", self.model, self.folder / "tokens", *base, "--token-weights", "true", "--fisher-windows", 40)
        self.assertNotEqual(same_bytes(self.folder / "tokens", self.folder / "balanced"), [])
        self.fail_with("expected fast, balanced or best", "compress", self.model, self.folder / "no", *base, "--preset", "quick")


if __name__ == "__main__":
    main()
