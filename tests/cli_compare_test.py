"""mica compare and mica status from the outside: reports, refusals, runs seen from another terminal."""
import html.parser
import json
import fcntl
import os
import pathlib
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import termios

from program import DEMO, MICA, ProgramTest, main, mica, read_json

PROTOTYPE = {"wikitext2": {"ppl": 5.79, "time": 223}, "ptb": {"ppl": 37.02, "time": 87}, "c4": {"error": "out of memory"}}
COMPRESSED = {"wikitext2": {"ppl": 7.17, "time": 220}, "ptb": {"ppl": 73.87, "time": 86}, "c4": {"ppl": 10.29, "time": 500}}


def result(ppl, seqlen=2048, **settings):
    """A result file of the plain model with one set."""
    return {"model": {"path": "models/some", "fingerprint": "f00d", "file_bytes": 3000000},
            "settings": {"convention": "gptq", "seqlen": seqlen, "dtype": "fp32", **settings},
            "datasets": {"c4": {"ppl": ppl, "time": 2, "windows": 3, "data": {"kind": "c4", "path": "c4.jsonl", "sha256": "aa"}}}}


def compressed_result(ppl):
    """A result file of a packed model; its compression facts carry every setting of mica compress."""
    facts = {"settings": {"coding": "fixed", "budget": {"kind": "bits", "value": 4.0}, "sparsity": 0.5, "pattern": "unstructured",
                          "grouping": "waterfill", "groups": 0, "estimator": "gaussian", "bit_options": [2, 3, 4, 6, 8], "group_size": 128,
                          "damping": 0.01, "information_weight": 1.0, "saliency_exponent": 1.0, "fisher_windows": 16, "embedding_bits": 8,
                          "dtype": "bf16", "samples": 16, "seqlen": 2048, "seed": 0, "calib": [{"kind": "text", "path": "a.txt", "weight": 1}]},
             "model": {"path": "models/some", "fingerprint": "f00d"}, "bits": {"mean_code_bits": 4.0},
             "file": {"bytes_before": 3000000, "bytes_after": 1000000}}
    other = result(ppl)
    other["model"] = {"path": "packed", "fingerprint": "beef", "file_bytes": 1000000, "compression": facts}
    return other


class Balanced(html.parser.HTMLParser):
    """Fails on an element that is closed out of order."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.texts.append(data)


class CompareTest(ProgramTest):
    def write(self, name, content):
        path = self.folder / name
        path.write_text(json.dumps(content) if not isinstance(content, str) else content, encoding="utf-8")
        return path

    def pair(self, baseline=None, compressed=None):
        return self.write("base.json", baseline or PROTOTYPE), self.write("small.json", compressed or COMPRESSED)

    def test_prototype_in_every_format_and_language(self):
        base, small = self.pair()
        for language in ("en", "zh"):
            for form in ("text", "markdown", "html"):
                report = self.succeed("compare", base, small, "--format", form, "--lang", language)
                for figure in ("5.79", "7.17", "76.2 %", "0.5 %", "10.29", "out of memory", "未测量" if language == "zh" else "not measured"):
                    self.assertIn(figure, report, (language, form))
        numbers = json.loads(self.succeed("compare", base, small, "--json"))
        self.assertEqual(numbers["datasets"]["wikitext2"]["retention_percent"], round(100 * (2 - 7.17 / 5.79), 1))
        self.assertIsNone(numbers["datasets"]["c4"]["retention_percent"])
        self.assertEqual(numbers["verdict"]["worst_set"], "ptb")

    def test_files_and_their_formats(self):
        base, small = self.pair()
        page, other = self.folder / "report.html", self.folder / "other.md"
        self.assertIn("76.2 %", self.succeed("compare", base, small, "--html", page))
        self.assertEqual(self.succeed("compare", base, small, "-o", other), "")
        self.assertTrue(other.read_text(encoding="utf-8").startswith("# Compression report"))
        parser = Balanced()
        parser.feed(page.read_text(encoding="utf-8"))
        self.assertEqual(parser.open, [])
        self.assertIn("76.2 %", " ".join(parser.texts))
        self.assertNotRegex(page.read_text(encoding="utf-8"), r"https?:|<script|url\(")

    def test_results_that_differ_are_refused_unless_forced(self):
        base, small = self.pair(result(10), result(11, seqlen=4096, dtype="bf16"))
        self.fail_with("seqlen 2048 against 4096; dtype fp32 against bf16", "compare", base, small)
        self.assertIn("seqlen 2048 against 4096", self.succeed("compare", base, small, "--force"))

    def test_advice_is_a_command_mica_knows(self):
        base, small = self.pair(result(10), compressed_result(12))
        advice = json.loads(self.succeed("compare", base, small, "--json"))["advice"]
        self.assertTrue(advice)
        known = {name: mica(name, "--help").stdout for name in ("compress", "eval")}
        for one in advice:
            words = shlex.split(one["command"])
            self.assertEqual(words[0], "mica")
            for flag in (word for word in words if word.startswith("--")):
                self.assertRegex(known[words[1]], re.escape(flag) + r"\b", one["command"])

    def test_the_advice_of_a_real_experiment_can_be_followed(self):
        model, packed, text = self.folder / "model", self.folder / "packed", self.text()
        self.succeed("synthesize", model, "--tokenizer", DEMO)
        calibration = self.folder / "calibration.txt"
        calibration.write_text(text.read_text(encoding="utf-8") + "The end.", encoding="utf-8")
        self.succeed("compress", model, packed, "--calib", f"text={calibration}", "--samples", 2, "--calib-seqlen", 64, "--bits", 2.5,
                     "--sparsity", 0.5)
        results = []
        for name, path in (("base", model), ("small", packed)):
            results.append(self.folder / f"{name}.json")
            table = self.succeed("eval", path, "--data", f"text={text}", "--seqlen", 64, "--max-windows", 4, "-o", results[-1],
                                 *(["--reference", model] if name == "small" else []))
        self.assertIn("KL, nats", table)
        # A random model loses nothing that could be advised on, so the compressed one is made to look worse.
        small = read_json(results[1])
        small["datasets"]["text"]["ppl"] *= 1.5
        divergence = small["datasets"]["text"]["divergence"]
        self.assertGreater(divergence["kl"], 0)
        self.assertEqual(small["reference"]["fingerprint"], small["model"]["compression"]["model"]["fingerprint"])
        self.assertNotIn("reference", read_json(results[0]))
        results[1].write_text(json.dumps(small))
        comparison = json.loads(self.succeed("compare", *results, "--json"))
        self.assertEqual([one["kind"] for one in comparison["advice"]], ["samples", "sparsity"])
        words = shlex.split(comparison["advice"][1]["command"])
        self.assertEqual(words[:5], ["mica", "compress", "--like", str(packed), words[4]])
        self.succeed(*words[1:])
        before, after = (read_json(path / "compression.json") for path in (packed, pathlib.Path(words[4])))
        changed = {key for key in before["settings"] if before["settings"][key] != after["settings"].get(key)}
        self.assertEqual(changed - {"pattern", "saliency_exponent"}, {"sparsity"})
        self.assertEqual(before["calibration"], after["calibration"])
        self.assertEqual(comparison["datasets"]["text"]["divergence"], divergence)
        self.assertIn("KL divergence, nats", self.succeed("compare", *results))
        report = self.succeed("compare", *results, "--lang", "zh")
        self.assertIn("KL 散度", report)
        for key in small["model"]["compression"]["settings"]:
            self.assertNotRegex(report, rf"(?m)^  {key} ", "a setting without its translation")
        stranger = self.folder / "stranger"
        self.succeed("synthesize", stranger, "--tokenizer", DEMO, "--seed", 5)
        quick = ("eval", packed, "--data", f"text={text}", "--seqlen", 64, "--max-windows", 1)
        self.assertIn("is not the model that", mica(*quick, "--reference", stranger).stderr)
        self.fail_with("nowhere", *quick, "--reference", self.folder / "nowhere")
        # What a model was calibrated on flatters it.
        self.fail_with("calibrated on", "eval", packed, "--data", f"text={calibration}", "--seqlen", 64)
        self.succeed("eval", packed, "--data", f"text={calibration}", "--seqlen", 64, "--max-windows", 1, "--force")

    def test_bad_input(self):
        base, small = self.pair()
        self.fail_with("absent.json", "compare", self.folder / "absent.json", small)
        self.fail_with("broken.json", "compare", self.write("broken.json", "{"), small)
        self.fail_with("no perplexities", "compare", base, self.write("empty.json", "{}"))
        self.fail_with("void.json: is empty", "compare", base, self.write("void.json", ""))
        self.fail_with("it is a model's configuration", "compare", base, DEMO / "config.json")
        self.fail_with("it is an experiment", "compare", base, DEMO / "experiment.json")
        self.fail_with("it is a comparison", "compare", base, self.write("comparison.json", self.succeed("compare", base, small, "--json")))
        self.fail_with('set c4: "ppl" is "11"', "compare", self.write("a.json", result(10)), self.write("b.json", result("11")))
        self.fail_with('"settings": "seqlen" is "long"', "compare", self.write("a.json", result(10)), self.write("b.json", result(11, seqlen="long")))
        self.fail_with('set c4: "ppl" is ', "compare", base, self.write("list.json", {"c4": {"ppl": [3]}}))
        self.fail_with("not a JSON object", "compare", base, self.write("list.json", "[1]"))
        self.fail_with("absent/report.html", "compare", base, small, "--html", self.folder / "absent" / "report.html")
        self.assertEqual(mica("compare", base, small, "--lang", "fr").returncode, 1)
        self.assertEqual(mica("compare", base).returncode, 2)


    def test_a_destroyed_model(self):
        base = self.write("base.json", {"w": {"ppl": 5.0, "nll": 1.609}})
        for name, set in (("nll", {"ppl": None, "nll": 800.0}), ("ppl", {"ppl": 1e308})):
            small = self.write(f"{name}.json", {"w": set})
            for form in ("text", "markdown", "html", "json"):
                for language in ("en", "zh"):
                    report = self.succeed("compare", base, small, "--format", form, "--lang", language)
                    self.assertNotRegex(report, r"-?\binf\b|\bnan\b|\d{30}", (name, form))
            numbers = json.loads(report := self.succeed("compare", base, small, "--json"))
            self.assertEqual(numbers["verdict"]["stars"], 2, report)
            self.assertGreater(numbers["datasets"]["w"]["excess_nats"], 700)
        # What is shown is what is rated.
        numbers = json.loads(self.succeed("compare", self.write("a.json", {"w": {"ppl": 100}}), self.write("b.json", {"w": {"ppl": 105.04}}), "--json"))
        self.assertEqual((numbers["verdict"]["worst_retention_percent"], numbers["verdict"]["stars"]), (95.0, 5))

    def test_names_in_advice_run_nothing(self):
        name = "x;touch pwn;$(touch pwn)'`touch pwn`\n\x1b[2Jtouch pwn"
        base = {"settings": {"special_tokens": True, "seqlen": 64}, "datasets": {name: {"ppl": 5, "data": {"kind": name, "path": name}}}}
        small = {"model": {"path": name, "compression": {"model": {"path": name}, "settings": {name: name, "budget": {"kind": name, "value": 3}}}},
                 "settings": {"special_tokens": True}, "datasets": {"y": {"ppl": 6, "data": {"path": name}}}}
        report = json.loads(self.succeed("compare", self.write("base.json", base), self.write("small.json", small), "--json"))
        self.assertEqual(len(report["advice"]), 2)
        for one in report["advice"]:
            self.assertIn("--special-tokens", one["command"])
            for shell in ("sh", "bash"):
                subprocess.run([shell], input="mica() { :; }\n" + one["command"], text=True, cwd=self.folder, check=True, capture_output=True)
        self.assertNotIn("pwn", [path.name for path in self.folder.iterdir()])

    def test_commands_fit_the_terminal(self):
        base, small = self.pair(result(10), compressed_result(12))
        for columns in (50, 80):
            leader, follower = pty.openpty()
            fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
            process = subprocess.Popen([MICA, "compare", str(base), str(small), "--lang", "en"], stdout=follower, stderr=subprocess.PIPE)
            os.close(follower)
            shown = b""
            while True:
                try:
                    block = os.read(leader, 65536)
                except OSError:  # how Linux ends it
                    break
                if not block:
                    break
                shown += block
            os.close(leader)
            self.assertEqual(process.wait(), 0)
            process.stderr.close()
            lines = shown.decode().replace("\r", "").splitlines()
            at = next(i for i, line in enumerate(lines) if line.startswith("    mica "))
            last = next(i for i in range(at, len(lines)) if not lines[i].endswith("\\"))
            self.assertTrue(all(len(line) <= columns for line in lines[at:last + 1]), lines[at:last + 1])
            self.assertEqual(last > at, columns == 50)

    def test_reports_begin_with_the_verdict(self):
        base, small = self.pair(result(10), compressed_result(12))
        for language, titles in (("en", ("Verdict", "Perplexity", "Compression", "Cost", "Configuration")),
                                 ("zh", ("结论", "困惑度", "压缩", "开销", "配置"))):
            for form, pattern in (("text", "\n{}\n-"), ("markdown", "\n## {}\n"), ("html", "<h2>{}</h2>")):
                report = self.succeed("compare", base, small, "--format", form, "--lang", language)
                places = [report.index(pattern.format(title)) for title in titles]
                self.assertEqual(places, sorted(places), (language, form))


class StatusTest(ProgramTest):
    STATUS = {"experiment": "demo", "stages": ["baseline", "compress"], "stage": "compress", "last": {"ppl": {"c4": 12.345}},
              "phase": "calibrate", "running": True, "done": 30, "total": 120, "unit": "tokens", "detail": "layer 2/8", "seconds": 61,
              "seconds_left": 183, "phase_seconds": {"c4": 5}, "peak_memory_bytes": 123456789, "updated": "2026-01-01T00:00:00Z"}

    def status(self, **changes):
        stat = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        own = {"pid": os.getpid(), "process_started": int(stat[19]), "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
               "host": socket.gethostname()}
        content = {**self.STATUS, **own, **changes}
        path = self.folder / "status.json"
        path.with_suffix(".new").write_text(json.dumps(content))
        path.with_suffix(".new").rename(path)

    def gone(self):
        process = subprocess.Popen(["true"])
        process.wait()
        return process.pid

    def test_running_run(self):
        self.status()
        shown = self.succeed("status", self.folder)
        for part in ("demo", "running", "baseline > [compress]", "calibrate", "25 %", "30 of 120 tokens", "layer 2/8", "1:01", "3:03 left", "123.5 MB", "12.35"):
            self.assertIn(part, shown)
        self.assertEqual(json.loads(self.succeed("status", self.folder, "--json"))["state"], "running")

    def test_load_of_the_gpu(self):
        self.status(gpu="NVIDIA H100", gpu_bus="0000:3b:00.0")
        fake = pathlib.Path(MICA).parent.parent / "tests" / "libmica_fake_nvml.so"
        if not fake.exists():
            self.skipTest(f"{fake} is not built")
        (self.folder / "libnvidia-ml.so.1").symlink_to(fake)

        def shown(*arguments):
            return subprocess.run([MICA, "status", self.folder, *arguments], env={**os.environ, "LD_LIBRARY_PATH": str(self.folder)}, capture_output=True,
                                  text=True, check=True).stdout
        self.assertRegex(shown(), r"GPU +NVIDIA H100: 34\.2 GB of 80\.0 GB in use, 97 % busy\n")
        self.assertEqual(json.loads(shown("--json"))["gpu_load"], {"used_bytes": 34200000000, "memory_bytes": 80000000000, "busy_percent": 97})
        self.status(gpu="NVIDIA H100", gpu_bus="0000:ff:00.0")  # not of this machine
        self.assertNotIn("GPU", shown())
        self.status(gpu="NVIDIA H100", gpu_bus="0000:3b:00.0", stage="done")
        self.assertNotIn("GPU", shown())

    def test_stale_status_is_said(self):
        self.status(pid=self.gone())
        shown = self.succeed("status", self.folder)
        self.assertIn("stopped", shown)
        self.assertIn("is gone", shown)
        self.assertNotIn("left", shown)
        self.assertIn("stopped", self.succeed("status", self.folder, "--watch"))  # ends at once

    def test_done_run(self):
        self.status(stage="done", pid=self.gone())
        self.assertIn("done", self.succeed("status", self.folder))
        self.assertEqual(json.loads(self.succeed("status", self.folder, "--json"))["state"], "done")

    def test_watching_follows_to_the_end(self):
        self.status()
        watcher = subprocess.Popen([MICA, "status", str(self.folder), "--watch"], stdout=subprocess.PIPE, text=True)

        def shows(part):
            self.assertTrue(any(part in line for line in iter(watcher.stdout.readline, "")), part)
        shows("25 %")
        self.status(done=90)
        shows("75 %")
        self.status(stage="done")
        shows("done")
        watcher.communicate(timeout=60)
        self.assertEqual(watcher.returncode, 0)

    def test_ctrl_c_ends_watching_without_failure(self):
        self.status()
        watcher = subprocess.Popen([MICA, "status", str(self.folder), "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertTrue(watcher.stdout.readline())  # it is watching
        watcher.send_signal(signal.SIGINT)
        _, stderr = watcher.communicate(timeout=60)
        self.assertEqual((watcher.returncode, stderr), (0, ""))

    def test_what_is_no_run(self):
        self.fail_with("status.json: not found", "status", self.folder)
        (self.folder / "status.json").write_text("[]")
        self.fail_with("is not the status of a run", "status", self.folder)


if __name__ == "__main__":
    main()
