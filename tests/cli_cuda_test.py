"""The main job on a CUDA device against the processor: figures, budgets, the same bytes twice, what is recorded. Skipped without a device."""
import json
import sys
import tempfile

from program import DEMO, ProgramTest, main, mica, read_json, same_bytes


def absence():
    """Why there is no CUDA device to use; None where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        done = mica("synthesize", f"{folder}/tiny", "--preset", "tiny", "--device", "cuda")
    return None if done.returncode == 0 else done.stderr.strip()


class CudaTest(ProgramTest):
    def evaluate(self, model, device, *arguments):
        """On another text than those that compressions are calibrated on."""
        text = self.text("evaluated.txt", ("docs/method.md", "docs/format.md"))
        return json.loads(self.succeed("eval", model, "--data", f"text={text}", "--seqlen", 512, "--max-windows", 8, "--device", device,
                                       *arguments, "--json"))

    def compress(self, name, device, *arguments):
        out = self.folder / name
        self.succeed("compress", DEMO, out, "--calib", f"text={self.text()}", "--samples", 8, "--seqlen", 512, "--device", device, *arguments)
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

    def test_a_device_that_is_not_there(self):
        self.fail_with("CUDA device", "eval", DEMO, "--data", f"text={self.text()}", "--device", "cuda:63")


if why := absence():
    print(f"SKIP: {why}")
    sys.exit(77)
main()
