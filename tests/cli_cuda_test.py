"""The main job on a CUDA device against the processor: figures, budgets, the same bytes twice, what is recorded. Skipped without a device."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from program import DEMO, MICA, ProgramTest, children, main, mica, read_json, same_bytes


def absence():
    """Why there is no CUDA device to use; None where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        done = mica("synthesize", f"{folder}/tiny", "--preset", "tiny", "--device", "cuda")
    return None if done.returncode == 0 else done.stderr.strip()


class CudaTest(ProgramTest):
    def evaluate(self, model, device, *arguments):
        """On another text than those that compressions are calibrated on."""
        text = self.text("evaluated.txt", ("database", "dictionary"))
        return json.loads(self.succeed("eval", model, "--data", f"text={text}", "--seqlen", 512, "--max-windows", 8, "--device", device,
                                       *arguments, "--json"))

    def command(self, out, device, *arguments):
        return ["compress", DEMO, out, "--calib", f"text={self.text()}", "--samples", 8, "--seqlen", 512, "--device", device, *arguments]

    def compress(self, name, device, *arguments):
        out = self.folder / name
        self.succeed(*self.command(out, device, *arguments))
        return out

    def test_perplexity_is_that_of_the_processor(self):
        for dtype, most in (("fp32", 2e-6), ("bf16", 1e-3)):
            here, there = (self.evaluate(DEMO, device, "--dtype", dtype) for device in ("cpu", "cuda"))
            one, other = here["datasets"]["text"]["ppl"], there["datasets"]["text"]["ppl"]
            self.assertLess(abs(other / one - 1), most, (dtype, one, other))
            self.assertEqual(here["settings"]["device"], "cpu")
            self.assertNotEqual(there["settings"]["device"], "cpu")
            again = self.evaluate(DEMO, "cuda", "--dtype", dtype)
            self.assertEqual(again["datasets"]["text"]["window_nll"], there["datasets"]["text"]["window_nll"])

    def check_compression(self, name, bits, *arguments):
        there, again, here = (self.compress(f"{name}_{run}", device, *arguments)
                              for run, device in (("cuda", "cuda"), ("again", "cuda"), ("cpu", "cpu")))
        self.assertEqual(same_bytes(there, again), [])
        records = [read_json(out / "compression.json") for out in (there, here)]
        for record in records:
            self.assertLessEqual(record["bits"]["bits_per_weight"], bits)
            self.assertGreater(record["bits"]["bits_per_weight"], bits - 0.02)
        # The packed files are read alike on both, and are of one quality.
        results = {(out.name, device): self.evaluate(out, device, "--reference", DEMO)["datasets"]["text"] for out in (there, here)
                   for device in ("cpu", "cuda")}
        for out in (there, here):
            one, other = (results[out.name, device]["ppl"] for device in ("cpu", "cuda"))
            self.assertLess(abs(other / one - 1), 1e-3)  # of some thousand tokens
        kl = [results[out.name, "cuda"]["divergence"]["kl"] for out in (there, here)]
        self.assertLess(abs(kl[0] / kl[1] - 1), 0.1, kl)

    def test_coding_entropy(self):
        self.check_compression("entropy", 3.2, "--coding", "entropy", "--bpw", 3.2)

    def test_coding_fixed(self):
        self.check_compression("fixed", 4.5, "--coding", "fixed", "--bpw", 4.5)

    def test_several_gpus(self):
        shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
        if len(shown.strip().splitlines()) < 2:
            self.skipTest("SKIP: one GPU")
        for coding, bits in (("entropy", 3.2), ("fixed", 4.5)):
            one, two = (self.compress(f"{coding}{i}", device, "--coding", coding, "--bpw", bits) for i, device in enumerate(("cuda:0", "all")))
            self.assertEqual(same_bytes(one, two), [])
            results = [self.evaluate(one, device, "--reference", DEMO)["datasets"]["text"] for device in ("cuda:0", "cuda:0-1")]
            for key in ("window_nll", "divergence"):
                self.assertEqual(results[0][key], results[1][key])
        # A rank that ends ends all, and another number of them goes on.
        command = self.command(self.folder / "killed", "all", "--coding", "entropy", "--bpw", 3.2)
        process = subprocess.Popen([MICA, *map(str, command)], stderr=subprocess.PIPE, text=True)
        time.sleep(6)
        ranks = children(process.pid)
        if ranks:
            os.kill(ranks[-1], signal.SIGKILL)
            self.assertIn("was ended by signal 9", process.communicate(timeout=60)[1])
            self.assertEqual(process.returncode, 1)
        again = self.compress("killed", "cuda:0", "--coding", "entropy", "--bpw", 3.2)
        self.assertEqual(same_bytes(self.folder / "entropy0", again), [])

    def test_activations_rest_on_the_processor(self):
        arguments = ("--coding", "entropy", "--bpw", 3.2, "--log-level", "info")
        done = mica(*self.command(self.folder / "resident", "cuda", *arguments))
        planned = re.search(r"compressing takes about ([\d.]+) ([MG])B of .*activations of all tokens ([\d.]+) ([MG])B", done.stderr)
        self.assertIsNotNone(planned, done.stderr)
        whole, activations = (float(planned[i]) * {"M": 1e6, "G": 1e9}[planned[i + 1]] for i in (1, 3))
        limit = ("--device-memory", f"{round((whole - activations / 2) / 1e6)}MB")
        done = mica(*self.command(self.folder / "resting", "cuda", *arguments, *limit))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "compressing takes about .*; the activations of all tokens rest on the processor")
        self.assertEqual(same_bytes(self.folder / "resident", self.folder / "resting"), [])
        # Planned was what was needed, within reason.
        peak = read_json(self.folder / "resting" / "compression.json")["gpu"]["peak_bytes"]
        self.assertLess(peak, whole - activations / 2)
        self.fail_with("needs about", *self.command(self.folder / "little", "cuda", *arguments[:4], "--device-memory", "50MB"))
        self.assertFalse((self.folder / "little").exists())

    def test_a_killed_run_goes_on(self):
        arguments = ("--coding", "entropy", "--bpw", 3.2)
        whole = self.compress("whole", "cuda", *arguments)
        for shards in (1, 4, 7):
            out = self.folder / f"killed_{shards}"
            with subprocess.Popen([MICA, *map(str, self.command(out, "cuda", *arguments))], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL) as run:
                while run.poll() is None and len(list(out.glob("model-*.safetensors"))) < shards:
                    time.sleep(0.005)
                run.send_signal(signal.SIGKILL)
            self.assertFalse((out / "compression.json").exists(), "was done too soon")
            self.succeed(*self.command(out, "cuda", *arguments))
            self.assertEqual(same_bytes(whole, out), [], shards)

    def test_what_is_damaged_takes_one_line(self):
        packed = self.compress("packed", "cuda", "--coding", "entropy", "--bpw", 3.2)
        shard = sorted(packed.glob("model-*.safetensors"))[3]
        text = f"text={self.text()}"
        with open(shard, "r+b") as file:
            file.truncate(shard.stat().st_size - 1000)
        self.fail_with(shard.name, "eval", packed, "--data", text, "--seqlen", 512, "--device", "cuda")
        broken = self.folder / "broken"
        shutil.copytree(DEMO, broken)
        weights = broken / "model.safetensors"
        with open(weights, "r+b") as file:  # NaN in FP16 and in BF16
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            begin = header["model.layers.2.mlp.up_proj.weight"]["data_offsets"][0]
            file.seek(file.tell() + begin)
            file.write(b"\xff\x7f" * 4)
        self.fail_with("layers.2.mlp.up_proj", "eval", broken, "--data", text, "--seqlen", 512, "--device", "cuda")
        self.fail_with("layers.2.mlp.up_proj", *self.command(self.folder / "out", "cuda")[:1], broken, self.folder / "out", "--calib", text,
                       "--samples", 8, "--seqlen", 512, "--device", "cuda", "--bpw", 3.2)

    def test_a_device_that_is_not_there(self):
        self.fail_with("CUDA device", "eval", DEMO, "--data", f"text={self.text()}", "--device", "cuda:63")


if why := absence():
    print(f"SKIP: {why}")
    sys.exit(77)
main()
