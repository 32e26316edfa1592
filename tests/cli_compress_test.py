"""mica compress from the outside: budgets, what is stored, stopping and going on, bad input."""
import json
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import time
import unittest

from program import DEMO, MICA, ProgramTest, main, mica, read_json, same_bytes

SMALL = ["--samples", "4", "--calib-seqlen", "256", "--fisher-windows", "1"]


class CompressTest(ProgramTest):
    def setUp(self):
        """A model of 4.5 M weights in 8 layers: small enough for many runs; models/demo where text counts."""
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", self.tokenizer, "--layers", 8, "--hidden", 256, "--ffn", 384, "--heads", 4)

    def compress(self, out, *arguments, model=None):
        text = self.text()
        self.succeed("compress", model or self.model, self.folder / out, "--calib", f"text={text}", *SMALL, *arguments)
        return read_json(self.folder / out / "compression.json")

    def test_one_weight_that_dwarfs_all_others_does_not_end_a_run_late(self):
        model, out = self.folder / "odd", self.folder / "out"
        for layer, name, value, bits in ((0, "mlp.up_proj", 1e4, 2.2), (0, "mlp.gate_proj", 6e4, 3)):
            with self.subTest(name=name, value=value, bits=bits):
                shutil.rmtree(model, ignore_errors=True)
                shutil.rmtree(out, ignore_errors=True)
                self.succeed("synthesize", model, "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 64, "--ffn", 96, "--heads", 4, "--dtype", "fp32")
                content = bytearray((model / "model.safetensors").read_bytes())
                size = struct.unpack_from("<Q", content)[0]
                tensor = json.loads(content[8:8 + size])[f"model.layers.{layer}.{name}.weight"]
                struct.pack_into("<f", content, 8 + size + tensor["data_offsets"][0] + 4 * (5 * tensor["shape"][1] + 7), value)
                (model / "model.safetensors").write_bytes(content)
                self.succeed("compress", model, out, "--calib", f"text={self.text()}", "--samples", 8, "--seqlen", 64, "--coding", "entropy", "--bpw", bits)
                reached = read_json(out / "compression.json")["bits"]["bits_per_weight"]
                self.assertLessEqual(reached, bits)
                # The last matrices of such a model have no use for bits; how many are left depends on the text.
                self.assertGreater(reached, bits - 0.15)

    def test_budgets_are_met_and_never_exceeded(self):
        cases = [("fixed", flag, budget) for flag in ("--bits", "--bpw") for budget in (2.3, 3.07, 4.0, 5.5)]
        cases += [("entropy", "--bpw", 2.3), ("entropy", "--bits", 3.07)]
        for coding, flag, budget in cases:
            with self.subTest(coding=coding, flag=flag, budget=budget):
                key = "mean_code_bits" if flag == "--bits" else "bits_per_weight"
                out = f"{coding}{flag[2:]}{budget}"
                reached = self.compress(out, flag, budget, "--coding", coding, "--statistics", self.folder / coding,
                                        "--drift-compensation", 0)["bits"][key]
                self.assertLessEqual(reached, budget + 1e-9)
                self.assertGreaterEqual(reached, budget - 0.01)
                shutil.rmtree(self.folder / out)

    def test_size_is_met_by_the_files(self):
        # A head that is the embedding, and one of its own, which is written after the layers.
        for out, model, bits, wanted in (("tied", DEMO, 8, 16_000_000), ("untied", self.model, 8, 3_000_000), ("low", self.model, 3, 2_000_000)):
            with self.subTest(out=out):
                self.compress(out, "--size", wanted, "--embedding-bits", bits, model=model)
                files = [*(self.folder / out).glob("*.safetensors"), *(self.folder / out).glob("*.index.json")]
                found = sum(file.stat().st_size for file in files)
                self.assertLessEqual(found, wanted)
                self.assertGreaterEqual(found, wanted - (12_600_000 if model == DEMO else 4_450_000) * 0.01 / 8)  # 0.01 bits of each compressed weight

    def test_every_byte_is_in_the_table(self):
        report = self.compress("bytes", "--bits", 3, "--sparsity", 0.5)
        total = sum(f.stat().st_size for f in (self.folder / "bytes").iterdir() if f.name != "compression.json")
        self.assertEqual(sum(report["bits"]["breakdown_bytes"].values()), total)
        self.assertAlmostEqual(report["bits"]["zero_share"], 0.5, delta=0.06)
        self.assertGreaterEqual(report["bits"]["zero_share"], 0.5)

    def test_more_bits_lose_less(self):
        losses = []
        for bits in (2, 3, 4, 8):
            report = self.compress(f"w{bits}", "--bits", bits, "--bit-options", bits)
            losses.append(sum(linear["relative_error"] for layer in report["layers"] for linear in layer["linears"].values()))
        self.assertEqual(losses, sorted(losses, reverse=True))
        self.assertEqual(len(set(losses)), 4)

    def test_threads_do_not_change_the_bytes(self):
        for coding in ("fixed", "entropy"):
            for threads in (1, 2):
                self.compress(f"{coding}{threads}", "--bpw", 3, "--coding", coding, "--threads", threads)
            self.assertEqual(same_bytes(self.folder / f"{coding}1", self.folder / f"{coding}2"), [])

    def test_a_killed_run_goes_on_to_the_same_bytes(self):
        random.seed(7)
        for coding, longest in (("fixed", 2.0), ("entropy", 3.0)):
            flags = ["--bpw", "3", "--coding", coding]
            self.compress(f"whole-{coding}", *flags)
            out = self.folder / f"killed-{coding}"
            command = [MICA, "compress", self.model, out, "--calib", f"text={self.text()}", *SMALL, *flags]
            kills = 0
            for _ in range(12):
                process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    process.wait(timeout=random.uniform(0.3, longest))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL if kills % 2 else signal.SIGINT)
                    process.wait()
                    kills += 1
                    continue
                break
            self.assertEqual(mica(*command[1:]).returncode if process.returncode else 0, 0)
            self.assertGreater(kills, 0)
            self.assertEqual(same_bytes(self.folder / f"whole-{coding}", out), [])

    def test_a_run_stopped_at_its_ends_goes_on(self):
        (self.folder / "packed" / ".work").mkdir(parents=True)  # killed before it could say which run it is
        report = self.compress("packed", "--bits", 3)
        written = {path.name: path.read_bytes() for path in (self.folder / "packed").iterdir()}
        (self.folder / "packed" / ".work").mkdir()  # killed before it was removed
        (self.folder / "packed" / ".work" / "shard-00001.json").write_text("{}")
        self.assertEqual(self.compress("packed", "--bits", 3), report)
        self.assertEqual({path.name: path.read_bytes() for path in (self.folder / "packed").iterdir()}, written)
        again = ["compress", self.model, self.folder / "packed", "--calib", f"text={self.text()}", *SMALL]
        self.fail_with("holds a finished run of another kind: --bits 3", *again, "--bits", 4)
        self.compress("other", "--bits", 4)
        shutil.copy(next((self.folder / "other").glob("model-00002*")), self.folder / "packed")
        self.fail_with("delete it to begin anew", *again, "--bits", 3)

    def test_statistics_serve_another_budget(self):
        kept = self.folder / "statistics"
        self.compress("first", "--bits", 3, "--statistics", kept)
        before = kept.stat().st_mtime_ns
        report = self.compress("second", "--bits", 4, "--statistics", kept)
        self.assertEqual(kept.stat().st_mtime_ns, before)
        self.assertNotIn("calibrate", report["time"])

    def test_export_agrees_with_packed(self):
        self.compress("packed", "--bits", 4, "--sparsity", 0.5, "--pattern", "2:4", model=DEMO)
        self.succeed("export", self.folder / "packed", self.folder / "hf", "--to", "hf")
        text = self.text()
        results = [json.loads(self.succeed("eval", self.folder / name, "--data", f"text={text}", "--seqlen", "256", "--force",
                                           "--max-windows", "4", "--dtype", "fp32", "--json")) for name in ("packed", "hf")]
        packed, exported = (result["datasets"]["text"]["ppl"] for result in results)
        self.assertAlmostEqual(packed, exported, delta=2e-3 * packed)

    def test_like_a_run_but(self):
        tiny = self.folder / "tiny"
        self.succeed("synthesize", tiny, "--tokenizer", self.tokenizer, "--layers", 1, "--hidden", 64, "--ffn", 96, "--heads", 2, "--shard-bytes", "100kB")
        (tiny / "chat_template.jinja").write_text("{{ messages }}")
        (tiny / "generation_config.json").write_text("{}")
        first = self.compress("first", "--bits", 3.5, "--pattern", "2:4", "--preset", "fast", "--seed", 7, model=tiny)
        packed = self.folder / "first"
        self.succeed("compress", "--like", packed, self.folder / "again")
        self.assertEqual(same_bytes(packed, self.folder / "again"), [])
        again = read_json(self.folder / "again" / "compression.json")
        self.assertEqual((again["settings"], again["calibration"]), (first["settings"], first["calibration"]))
        self.succeed("compress", self.folder / "other", "--like", packed, "--bpw", 4.25, "--sparsity", 0)
        other = read_json(self.folder / "other" / "compression.json")["settings"]
        self.assertEqual((other["budget"], other["sparsity"], other["pattern"], other["seed"]), ({"kind": "bpw", "value": 4.25}, 0, "none", 7))
        self.assertEqual(other["refine_passes"], first["settings"]["refine_passes"])
        # Another model of the same run; what is idle beside it is refused as ever.
        self.succeed("compress", self.model, self.folder / "large", "--like", packed, "--seed", 8)
        self.assertEqual(read_json(self.folder / "large" / "compression.json")["settings"]["seed"], 8)
        self.fail_with("--lambda changes nothing", "compress", "--like", packed, self.folder / "x", "--lambda", 0.5)
        self.fail_with("has no compression.json", "compress", "--like", tiny, self.folder / "x")
        for usage in (["--like", packed], [tiny]):
            self.assertEqual(mica("compress", *map(str, usage)).returncode, 2, usage)
        # What goes with a model goes along, and total_size means one thing.
        self.succeed("export", packed, self.folder / "plain")
        for directory in (packed, self.folder / "plain"):
            for name in ("chat_template.jinja", "generation_config.json", "tokenizer.model"):
                self.assertEqual((directory / name).read_bytes(), (tiny / name).read_bytes())
        for directory in (tiny, packed):
            size = 0
            for file in directory.glob("*.safetensors"):
                raw = file.read_bytes()
                size += len(raw) - 8 - int.from_bytes(raw[:8], "little")
            self.assertEqual(read_json(directory / "model.safetensors.index.json")["metadata"]["total_size"], size)
        text = pathlib.Path(first["calibration"]["sources"][0]["path"])
        text.write_text(text.read_text(encoding="utf-8") + " More.", encoding="utf-8")
        self.assertIn("is not the text any more", mica("compress", "--like", packed, self.folder / "later").stderr)

    def test_groupings_and_estimators_run(self):
        for grouping, estimator in (("spectral", "gaussian"), ("hierarchical", "copula"), ("kmeans", "histogram"), (None, None)):
            with self.subTest(grouping=grouping):
                flags = ["--grouping", grouping, "--estimator", estimator] if grouping else []
                report = self.compress(grouping or "groups", "--bits", 3.5, *flags, "--groups", 5)
                self.assertEqual(report["settings"]["grouping"], grouping or "spectral")
                linear = report["layers"][0]["linears"]["self_attn.q_proj"]
                self.assertEqual(linear["groups"], 5)
                self.assertLessEqual(report["bits"]["mean_code_bits"], 3.5 + 1e-9)
                self.assertGreaterEqual(report["bits"]["mean_code_bits"], 3.49)

    def test_bad_input(self):
        text, out = self.text(), self.folder / "bad"
        calib = ["--calib", f"text={text}", *SMALL]
        self.fail_with("--sparsity is 1.5", "compress", DEMO, out, *calib, "--sparsity", 1.5)
        self.fail_with("--bit-options has 5", "compress", DEMO, out, *calib, "--bit-options", 5)
        self.fail_with("--lambda changes nothing with --coding fixed", "compress", DEMO, out, *calib, "--lambda", 0.5)
        self.fail_with("--groups changes nothing", "compress", DEMO, out, *calib, "--groups", 5, "--grouping", "waterfill")
        self.fail_with("at most", "compress", DEMO, out, *calib, "--bits", 40)
        self.fail_with("--bits is 1.5, expected 2 to 8 for bit widths 2,3,4,6,8", "compress", DEMO, out, *calib, "--bits", 1.5)
        self.fail_with("embedding", "compress", DEMO, out, *calib, "--size", "1MB")
        self.fail_with("--size is 9000000 bytes, expected 9", "compress", DEMO, out, *calib, "--size", "9MB")
        self.fail_with("expected 0.1 to 16", "compress", DEMO, out, *calib, "--bpw", 0.05, "--coding", "entropy")
        self.fail_with("with 95.2 % zeros", "compress", self.model, out, *calib, "--bpw", 3, "--sparsity", 0.95, "--coding", "entropy")
        tiny = self.folder / "tiny"
        self.succeed("synthesize", tiny, "--tokenizer", self.tokenizer, "--layers", 1, "--hidden", 64, "--ffn", 96, "--heads", 2)
        self.fail_with("tables and steps included", "compress", tiny, out, *calib, "--bpw", 0.12, "--coding", "entropy")
        shutil.rmtree(out)
        self.fail_with("tokens, expected at least one window", "compress", DEMO, out, "--calib", f"text={text}", "--calib-seqlen", 200000)
        self.fail_with("missing.txt", "compress", DEMO, out, "--calib", "text=missing.txt")
        self.assertFalse(out.exists(), "a failed start leaves nothing behind")
        out.mkdir()
        (out / "letter").write_text("mine")
        self.fail_with("not empty", "compress", DEMO, out, *calib)
        self.assertEqual((out / "letter").read_text(), "mine")

    def test_a_full_disk_is_found_before_the_work(self):
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", disk], capture_output=True).returncode != 0:
            self.skipTest("needs the right to mount a file system")
        try:
            self.fail_with("still needs", "compress", DEMO, disk / "packed", "--calib", f"text={self.text()}", *SMALL, "--bits", 4)
            self.assertEqual(list(disk.iterdir()), [])
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_damaged_packed_files_are_named(self):
        self.compress("packed", "--bits", 3)
        shard = sorted((self.folder / "packed").glob("model-00002*"))[0]
        whole = shard.read_bytes()
        text = self.text()
        evaluate = ["eval", self.folder / "packed", "--data", f"text={text}", "--seqlen", 128, "--max-windows", 1, "--force"]
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        shard.write_bytes(flipped)
        self.fail_with("model.layers.0.", *evaluate)
        shard.write_bytes(whole[:-1])
        self.fail_with(shard.name, *evaluate)
        shard.write_bytes(whole)
        config = read_json(self.folder / "packed" / "config.json")
        config["quantization_config"]["version"] = 99
        (self.folder / "packed" / "config.json").write_text(json.dumps(config))
        self.fail_with("99", *evaluate)


if __name__ == "__main__":
    main()
