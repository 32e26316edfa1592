"""Coding gguf: a file that llama.cpp loads, its types chosen under a budget; read back, measured, repeated, refused."""
import json
import signal
import subprocess
import time

from program import DEMO, MICA, ProgramTest, main, mica, read_json, same_bytes


class GgufTest(ProgramTest):
    QUICK = ("--coding", "gguf", "--samples", 4, "--seqlen", 64, "--fisher-windows", 2, "--statistics-windows", 2, "--preset", "fast")

    def compress(self, *more, out="out"):
        path = self.folder / out
        self.succeed("compress", DEMO, path, "--calib", f"text={self.text()}", *self.QUICK, *more)
        return path

    def types(self, model):
        """By the names of the original."""
        names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
                 "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
        found = {}
        for tensor in json.loads(self.succeed("inspect", model, "--json"))["tensors"]:
            layer, _, part = tensor["name"].removeprefix("blk.").partition(".")
            part = part.removesuffix(".weight")
            found[f"{layer}.{names[part]}" if part in names else tensor["name"]] = tensor["dtype"]
        return found

    def test_a_budget_is_met_by_types_and_the_file_is_measured(self):
        out = self.compress("--bpw", 5.2)
        record = read_json(out / "compression.json")
        self.assertLessEqual(record["bits"]["bits_per_weight"], 5.2)
        self.assertGreater(record["bits"]["bits_per_weight"], 5.0)
        self.assertEqual(record["file"]["bytes_after"], (out / "model.gguf").stat().st_size)
        self.assertEqual({p.name for p in out.iterdir() if p.suffix == ".safetensors"}, set())
        inspected = json.loads(self.succeed("inspect", out / "model.gguf", "--json"))
        self.assertAlmostEqual(inspected["decoder_matrices"]["bits_per_weight"], record["bits"]["bits_per_weight"], places=9)
        stored = self.types(out / "model.gguf")
        for layer in record["layers"]:
            for name, matrix in layer["linears"].items():
                self.assertEqual(stored[f"{layer['layer']}.{name}"], matrix["type"])
        # Rows of 384 are no blocks of 256, rows of 1024 (down_proj) are.
        self.assertEqual(stored["token_embd.weight"], "Q8_0")
        results = []
        for model, name in ((DEMO, "before"), (out, "after")):
            results.append(self.folder / f"{name}.json")
            self.succeed("eval", model, "--data", f"text={self.text()}", "--seqlen", 64, "--max-windows", 8, "-o", results[-1],
                         *(() if model == DEMO else ("--reference", DEMO, "--force")))
        before, after = (read_json(path)["datasets"]["text"] for path in results)
        self.assertLess(abs(after["nll"] - before["nll"]), 0.2)
        self.assertLess(after["divergence"]["kl"], 0.1)
        report = self.succeed("compare", *results)
        self.assertIn("gguf", report)
        self.assertIn("matrices by stored type", report)
        compared = json.loads(self.succeed("compare", *results, "--json"))["compression"]
        of_down = [stored[f"{layer['layer']}.mlp.down_proj"] for layer in record["layers"]]
        self.assertEqual(compared["types_by_type"]["mlp.down_proj"], {kind: of_down.count(kind) for kind in of_down})
        self.assertEqual(sum(compared["types_by_layers"]["0"].values()), 7)

    def test_one_type_throughout(self):
        out = self.compress("--gguf-types", "Q5_0", "--bpw", 5.5)
        types = {t for name, t in self.types(out / "model.gguf").items() if "proj" in name}
        self.assertEqual(types, {"Q5_0"})

    def test_types_of_256_give_way_where_rows_are_shorter(self):
        out = self.compress("--gguf-types", "Q4_K", "--bpw", 5.5, "--embedding-bits", 4)
        types = self.types(out / "model.gguf")
        self.assertEqual(types["0.mlp.down_proj"], "Q4_K")
        self.assertEqual(types["0.mlp.up_proj"], "Q5_0")
        self.assertEqual(types["token_embd.weight"], "Q5_0")

    def test_a_file_is_no_larger_than_asked_for(self):
        size = 14_000_000
        out = self.compress("--size", size, "--embedding-bits", 6)
        written = (out / "model.gguf").stat().st_size
        self.assertLessEqual(written, size)
        self.assertGreater(written, 0.99 * size)

    def test_what_is_killed_goes_on_to_the_same_bytes(self):
        whole, killed = self.compress("--bpw", 5.0, out="whole"), self.folder / "killed"
        command = [MICA, "compress", DEMO, killed, "--calib", f"text={self.text()}", *self.QUICK, "--bpw", 5.0]
        process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (killed / ".work" / "shard-00003.json").exists():
            time.sleep(0.02)
        self.assertIsNone(process.poll(), "it was not killed while it worked")
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertFalse((killed / "model.gguf").exists())
        self.compress("--bpw", 5.0, out="killed")
        self.assertEqual(same_bytes(whole, killed), [])
        self.assertIn("was finished before", mica(*[str(part) for part in command[1:]]).stderr)

    def small(self):
        """A model of little work."""
        path = self.folder / "small"
        if not path.exists():
            self.succeed("synthesize", path, "--tokenizer", DEMO, "--layers", 4, "--hidden", 32, "--ffn", 64, "--heads", 2, "--kv-heads", 2)
            self.text()
        return path

    def command(self, out, bpw=6.0):
        return ["compress", self.small(), self.folder / out, "--calib", f"text={self.folder / 'text.txt'}", *self.QUICK, "--bpw", bpw]

    def test_one_file_with_its_record_beside_it(self):
        self.succeed(*self.command("q.gguf"))
        path = self.folder / "q.gguf"
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["q.gguf", "q.gguf.json", "small", "text.txt"])
        self.succeed(*self.command("directory"))
        self.assertEqual(path.read_bytes(), (self.folder / "directory" / "model.gguf").read_bytes())
        self.assertEqual(read_json(f"{path}.json")["file"]["bytes_after"], path.stat().st_size)
        data = ("--data", f"text={self.folder / 'text.txt'}", "--seqlen", 64, "--max-windows", 2)
        self.fail_with("is a text this model was calibrated on", "eval", path, *data)
        self.fail_with("q.gguf.json", "eval", path, *data, "--force", "-o", f"{path}.json")
        results = []
        for model in (self.small(), path):
            results.append(self.folder / f"{len(results)}.json")
            self.succeed("eval", model, *data, "--force", "-o", results[-1])
        self.assertEqual(read_json(results[1])["model"]["compression"]["settings"]["coding"], "gguf")
        self.assertIn("gguf", self.succeed("compare", *results))
        self.assertEqual(json.loads(self.succeed("inspect", path, "--json"))["record"], f"{path}.json")
        self.assertIn("was finished before", mica(*self.command("q.gguf")).stderr)
        self.fail_with("is of a finished run of another kind", *self.command("q.gguf", 6.5))
        self.succeed("compress", self.small(), self.folder / "other.gguf", "--like", path)
        self.assertEqual((self.folder / "other.gguf").read_bytes(), path.read_bytes())
        (self.folder / "mine.gguf").write_bytes(b"mine")
        self.fail_with("mine.gguf: exists already", *self.command("mine.gguf"))
        self.assertEqual((self.folder / "mine.gguf").read_bytes(), b"mine")
        self.fail_with("which only --coding gguf writes", "compress", self.small(), self.folder / "x.gguf", "--calib",
                       f"text={self.folder / 'text.txt'}", "--bits", 4)

    def test_one_file_that_is_killed_goes_on_to_the_same_bytes(self):
        self.succeed(*self.command("whole.gguf"))
        whole, killed, work = (self.folder / name for name in ("whole.gguf", "killed.gguf", "killed.gguf.work"))
        process = subprocess.Popen([MICA, *map(str, self.command("killed.gguf"))], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (work / ".work" / "shard-00002.json").exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if killed.exists():
            self.skipTest("it was done before it was killed")
        self.assertTrue(work.exists())
        self.succeed(*self.command("killed.gguf"))
        self.assertEqual(whole.read_bytes(), killed.read_bytes())
        self.assertFalse(work.exists())

    def test_what_cannot_be_is_refused(self):
        out, calib = self.folder / "out", f"text={self.text()}"
        for expected, flags in ((" names \"Q9_K\"", ("--gguf-types", "Q9_K")), ("twice", ("--gguf-types", "Q8_0,Q8_0")),
                                ("--sparsity is 0.5", ("--sparsity", 0.5)), ("--bpw is 1", ("--bpw", 1)),
                                ("--lambda changes nothing", ("--lambda", 0.1))):
            self.fail_with(expected, "compress", DEMO, out, "--calib", calib, "--coding", "gguf", *flags)
            self.assertFalse(out.exists())
        self.fail_with("--gguf-types changes nothing", "compress", DEMO, out, "--calib", calib, "--gguf-types", "Q4_0")


if __name__ == "__main__":
    main()
