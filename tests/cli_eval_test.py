"""mica eval from the outside: figures, result file, bad input, a full disk, Ctrl-C."""
import gzip
import json
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from program import DEMO, MICA, ProgramTest, main, mica, read_json

PROSE = ("The river ran past the mill and under the old stone bridge. Nobody in the village could say who had built it, or when, "
         "but all of them had crossed it on the day they were born and meant to cross it once more.\n")
QUICK = ["--seqlen", "64", "--max-windows", "2", "--dtype", "fp32"]


class EvalTest(ProgramTest):
    def prose(self, name="prose.txt", repeat=20):
        path = self.folder / name
        path.write_text(PROSE * repeat, encoding="utf-8")
        return path

    def evaluate(self, *arguments):
        return json.loads(self.succeed("eval", DEMO, *arguments, "--json"))

    def test_result_file_table_and_json_agree(self):
        out = self.folder / "result.json"
        table = self.succeed("eval", DEMO, "--data", f"text={self.prose()}", *QUICK, "-o", out)
        result = read_json(out)
        figure = result["datasets"]["text"]
        self.assertIn(f"{figure['ppl']:.3f}", table)
        self.assertIn("peak memory", table)
        self.assertEqual(figure["windows"], 2)
        self.assertEqual(figure["tokens"], 128)
        self.assertEqual(figure["scored_tokens"], 126)
        again = self.evaluate("--data", f"text={self.prose()}", *QUICK)
        self.assertEqual(again["datasets"]["text"]["ppl"], figure["ppl"])
        for key in ("mica", "created", "model", "settings", "host", "datasets", "time", "peak_memory_bytes"):
            self.assertIn(key, result)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["prose.txt", "result.json"])

    def test_threads_and_activation_memory_do_not_change_the_figures(self):
        figures = set()
        for more in (["--threads", "1"], ["--threads", "2"], ["--activation-memory", "1kB"], ["--activation-memory", "2GB"]):
            result = self.evaluate("--data", f"text={self.prose()}", "--seqlen", 96, "--max-windows", 5, *more)
            figures.add(result["datasets"]["text"]["ppl"])
        self.assertEqual(len(figures), 1)

    def test_kinds_names_and_compressed_texts(self):
        ptb = self.folder / "ptb.txt"
        ptb.write_text("".join(f" {line} \n" for line in [PROSE.strip()] * 20))
        c4 = self.folder / "c4.jsonl.gz"
        c4.write_bytes(gzip.compress("".join(json.dumps({"text": PROSE.strip()}) + "\n" for _ in range(20)).encode()))
        plain = self.folder / "joined.txt"
        plain.write_text(" ".join([PROSE.strip()] * 20))
        result = self.evaluate("--data", f"ptb={ptb}", "--data", f"c4={c4}", "--data", f"mine:text={plain}", *QUICK)
        sets = result["datasets"]
        self.assertEqual(list(sets), ["ptb", "c4", "mine"])
        self.assertEqual(sets["ptb"]["ppl"], sets["mine"]["ppl"])
        self.assertEqual(sets["c4"]["ppl"], sets["mine"]["ppl"])
        self.assertEqual(sets["mine"]["data"]["kind"], "text")

    def test_files_of_every_layout_give_the_same_figures(self):
        text, results = self.prose(), []
        for name, layout in (("one", []), ("bin", ["--format", "bin"]), ("shards", ["--shard-bytes", "100kB"]),
                             ("bins", ["--format", "bin", "--shard-bytes", "100kB"])):
            self.succeed("synthesize", self.folder / name, "--tokenizer", DEMO, *layout)
            results.append(json.loads(self.succeed("eval", self.folder / name, "--data", f"text={text}", *QUICK, "--json")))
        self.assertEqual(len({r["datasets"]["text"]["ppl"] for r in results}), 1)
        self.assertEqual(len({r["model"]["fingerprint"] for r in results}), 1)
        self.assertEqual(len({r["model"]["layout"] for r in results}), 4, [r["model"]["layout"] for r in results])

    def test_bits_per_byte_are_of_the_text(self):
        """A tokenizer without a piece for the blank: three byte pieces that stand for one byte."""
        model = self.folder / "model"
        self.succeed("synthesize", model, "--tokenizer", DEMO)
        pieces = (model / "tokenizer.model").read_bytes()
        (model / "tokenizer.model").write_bytes(pieces.replace(b"\n\x03\xe2\x96\x81", b"\n\x03\xe2\x96\x82", 1))
        text = self.folder / "text.txt"
        text.write_text("1 2 (3) 4  " * 60)
        tokens = len(json.loads(self.succeed("tokenize", model, text)))
        result = json.loads(self.succeed("eval", model, "--data", f"text={text}", "--seqlen", tokens, "--json"))["datasets"]["text"]
        self.assertEqual(result["scored_tokens"], tokens - 1)  # all of the text
        self.assertAlmostEqual(result["bits_per_byte"], result["nll"] * (tokens - 1) / math.log(2) / len(text.read_bytes()), 9)

    def test_sets_named_like_phases(self):
        arguments = [f"{name}:text={self.prose()}" for name in ("texts", "fingerprint", "compress", "total", "pass")]
        result = self.evaluate(*(word for data in arguments for word in ("--data", data)), "--seqlen", 16, "--max-windows", 1)
        self.assertEqual(list(result["time"]), ["texts", "fingerprint", "weights", "pass", "total"])
        self.assertEqual(list(result["datasets"]), ["texts", "fingerprint", "compress", "total", "pass"])
        for phase in ("weights", "pass"):
            self.assertAlmostEqual(result["time"][phase], sum(s["phases"][phase] for s in result["datasets"].values()))
        self.assertLess(max(s["time"] for s in result["datasets"].values()), result["time"]["total"])

    def test_conventions_differ_and_are_recorded(self):
        results = [self.evaluate("--data", f"text={self.prose()}", *QUICK, "--convention", name) for name in ("gptq", "llamacpp")]
        self.assertEqual([r["settings"]["convention"] for r in results], ["gptq", "llamacpp"])
        self.assertEqual([r["datasets"]["text"]["scored_tokens"] for r in results], [126, 62])
        # The second half of a window has more to go by than the whole.
        self.assertLess(results[1]["datasets"]["text"]["ppl"], results[0]["datasets"]["text"]["ppl"])

    def test_bf16_is_close_to_fp32(self):
        text = self.prose()
        full = self.evaluate("--data", f"text={text}", *QUICK)["datasets"]["text"]["ppl"]
        half = self.evaluate("--data", f"text={text}", *QUICK[:-1], "bf16")["datasets"]["text"]["ppl"]
        self.assertNotEqual(full, half)
        self.assertAlmostEqual(full, half, delta=0.01 * full)

    def test_bad_texts(self):
        empty = self.folder / "empty.txt"
        empty.write_text("")
        self.fail_with("empty.txt", "eval", DEMO, "--data", f"text={empty}")
        short = self.prose("short.txt", 1)
        self.fail_with("fewer than one window of 2048", "eval", DEMO, "--data", f"text={short}")
        latin = self.folder / "latin.txt"
        latin.write_bytes(PROSE.encode() + b"caf\xe9 " + PROSE.encode())
        self.fail_with(str(len(PROSE.encode()) + 3), "eval", DEMO, "--data", f"text={latin}")
        self.fail_with("absent.txt", "eval", DEMO, "--data", f"text={self.folder / 'absent.txt'}")
        self.fail_with("given twice", "eval", DEMO, "--data", f"text={short}", "--data", f"text={short}")
        broken = self.folder / "broken.jsonl"
        broken.write_text('{"text": "fine"}\n{"text": \n')
        self.fail_with("broken.jsonl", "eval", DEMO, "--data", f"c4={broken}")

    def test_bad_models(self):
        text = self.prose()
        self.fail_with("nowhere", "eval", self.folder / "nowhere", "--data", f"text={text}")
        copy = self.folder / "copy"
        shutil.copytree(DEMO, copy)
        (copy / "tokenizer.model").unlink()
        self.fail_with("tokenizer.model", "eval", copy, "--data", f"text={text}")

    def test_usage_is_exit_code_2(self):
        text = self.prose()
        for wrong in (["eval"], ["eval", DEMO], ["eval", DEMO, "--data", f"text={text}", "--more"]):
            self.assertEqual(mica(*wrong).returncode, 2, wrong)
        for wrong in (["--convention", "mine"], ["--dtype", "fp8"], ["--seqlen", "1"]):
            self.assertEqual(mica("eval", DEMO, "--data", f"text={text}", *wrong).returncode, 1, wrong)

    def test_unwritable_output_is_found_before_the_work(self):
        began = time.monotonic()
        arguments = ["eval", DEMO, "--data", f"text={self.prose(repeat=2000)}", "--seqlen", "64", "-o"]  # minutes, if it began
        self.fail_with("absent/result.json", *arguments, self.folder / "absent" / "result.json")
        self.fail_with("is a directory", *arguments, self.folder)
        if os.geteuid() != 0:
            locked = self.folder / "locked"
            locked.mkdir(mode=0o500)
            self.fail_with("locked/result.json", *arguments, locked / "result.json")
        self.assertLess(time.monotonic() - began, 30)

    def test_full_device_keeps_the_table(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        text = self.prose()
        done = mica("eval", DEMO, "--data", f"text={text}", *QUICK, "-o", "/dev/full")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"mica: /dev/full: writing failed \(No space left on device\)")
        self.assertIn("perplexity", done.stdout)
        with open("/dev/full", "w") as full:
            redirected = subprocess.run([MICA, "eval", str(DEMO), "--data", f"text={text}", *QUICK], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(redirected.returncode, 1)
        self.assertIn("mica: stdout: writing failed", redirected.stderr)

    def test_full_disk_is_found_before_the_work(self):
        disk = tempfile.mkdtemp(prefix="mica_disk_")
        try:
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode != 0:
                self.skipTest("a tmpfs cannot be mounted here")
            try:
                with open(os.path.join(disk, "filler"), "wb") as filler:
                    filler.write(bytes(60 << 10))
                self.fail_with("No space left on device", "eval", DEMO, "--data", f"text={self.prose()}", *QUICK, "-o", os.path.join(disk, "result.json"))
                self.assertEqual(os.listdir(disk), ["filler"], "nothing half-written is left")
            finally:
                subprocess.run(["umount", disk], check=True)
        finally:
            os.rmdir(disk)

    def test_ctrl_c_ends_cleanly(self):
        text, out = self.prose(repeat=3000), self.folder / "result.json"
        process = subprocess.Popen([MICA, "eval", str(DEMO), "--data", f"text={text}", "--seqlen", "256", "-o", str(out)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, stderr)
        self.assertEqual(stdout, "")
        self.assertEqual(len(re.findall("^mica: interrupted", stderr, re.M)), 1, stderr)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["prose.txt"])


if __name__ == "__main__":
    main()
