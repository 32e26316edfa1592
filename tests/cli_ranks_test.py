"""One job by several ranks: the same figures and the same bytes as by one, whatever becomes of a rank."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

import program
from program import MICA, ProgramTest, read_json, same_bytes

MPIRUN = shutil.which("mpirun")
MPI_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(MICA)), "libmica_mpi.so")
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
               # What Open MPI's plugins leave behind; they are unloaded before leaks are looked for, so cannot be named.
               "ASAN_OPTIONS": "detect_leaks=0"}


def command(ranks, *arguments):
    words = [MICA, *map(str, arguments), "--threads", "1", "--device", "cpu"]
    return words if ranks == 1 else [MPIRUN, "-n", str(ranks), *words]


def by_ranks(ranks, *arguments):
    return subprocess.run(command(ranks, *arguments), capture_output=True, text=True, timeout=900, env=ENVIRONMENT)


class Ranks(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--layers", 2, "--hidden", 96, "--heads", 4, "--kv-heads", 2, "--ffn", 384,
                     "--max-positions", 1024, "--tokenizer", self.tokenizer, "--dtype", "fp32")
        self.calibration = self.text("calib.txt")
        self.evaluation = self.text("eval.txt", ("database", "dictionary"))

    def done(self, ranks, *arguments):
        done = by_ranks(ranks, *arguments)
        self.assertEqual(done.returncode, 0, f"{ranks} ranks: {done.stderr}")
        return done.stdout

    def compress(self, ranks, name, *arguments, samples=18):
        out = self.folder / f"{name}.{ranks}"
        self.done(ranks, "compress", self.model, out, "--calib", f"text={self.calibration}", "--samples", samples,
                  "--seqlen", 300, "--statistics", self.folder / f"{name}.{ranks}.statistics", *arguments)
        return out

    def same_by_all(self, name, *arguments):
        """Three runs of six windows: ranks have one or two of their blocks, dealt unevenly."""
        one = self.compress(1, name, *arguments)
        for ranks in (2, 3):
            other = self.compress(ranks, name, *arguments)
            self.assertEqual(same_bytes(one, other), [], f"{ranks} ranks")
            statistics = [(self.folder / f"{name}.{n}.statistics").read_bytes() for n in (1, ranks)]
            self.assertEqual(statistics[0], statistics[1], f"{ranks} ranks")
        return one


@unittest.skipUnless(MPIRUN and os.path.exists(MPI_LIBRARY), "SKIP: no MPI")
class SameBytes(Ranks):
    def test_entropy(self):
        self.same_by_all("entropy", "--coding", "entropy", "--bpw", 3)

    def test_entropy_in_tiles_of_rows(self):
        """Without feedback from row to row the tiles of a matrix are dealt, and some ranks have none."""
        self.same_by_all("tiles", "--coding", "entropy", "--bpw", 2.5, "--row-feedback", "false", "--sparsity", 0.3)

    def test_token_weights(self):
        self.same_by_all("weights", "--coding", "entropy", "--bpw", 3, "--token-weights", "true", "--fisher-windows", 18)

    def test_sampled_labels_and_sampled_information(self):
        self.same_by_all("sampled", "--coding", "fixed", "--bits", 4, "--sampled-labels", "true", "--grouping", "kmeans",
                         "--estimator", "histogram", "--groups", 4)

    def test_fixed_with_zeros(self):
        self.same_by_all("fixed", "--coding", "fixed", "--bits", 4, "--sparsity", 0.5)

    def test_gguf(self):
        self.model = self.folder / "wide"
        self.succeed("synthesize", self.model, "--layers", 2, "--hidden", 256, "--heads", 4, "--ffn", 512,
                     "--max-positions", 1024, "--tokenizer", self.tokenizer)
        self.same_by_all("gguf", "--coding", "gguf", "--bpw", 4.5)

    def test_evaluation(self):
        packed = self.compress(1, "packed", "--coding", "entropy", "--bpw", 3)
        results = [read_json_text(self.done(ranks, "eval", packed, "--reference", self.model, "--data",
                                            f"text={self.evaluation}", "--seqlen", 100, "--max-windows", 13, "--json"))
                   for ranks in (1, 2, 3)]
        for other in results[1:]:
            for name, of_one in results[0]["datasets"].items():
                for key in ("ppl", "window_nll", "divergence", "by_occurrence"):
                    self.assertEqual(of_one.get(key), other["datasets"][name].get(key), key)

    def test_more_ranks_than_work(self):
        """Ranks without windows wait for the others."""
        one, three = (read_json_text(self.done(ranks, "eval", self.model, "--data", f"text={self.evaluation}", "--seqlen",
                                               512, "--max-windows", 1, "--json")) for ranks in (1, 3))
        self.assertEqual(one["datasets"]["text"]["window_nll"], three["datasets"]["text"]["window_nll"])
        one = self.compress(1, "short", "--coding", "entropy", "--bpw", 3, samples=2)
        self.assertEqual(same_bytes(one, self.compress(3, "short", "--coding", "entropy", "--bpw", 3, samples=2)), [])

    def test_each_rank_says_what_it_needs(self):
        """18 windows are three runs, of which two ranks have two and one; of five, three have one and the others none."""
        def planned(ranks):
            done = by_ranks(ranks, "compress", self.model, self.folder / f"planned{ranks}", "--calib", f"text={self.calibration}",
                            "--samples", 18, "--seqlen", 300, "--coding", "fixed", "--bits", 4, "--log-level", "info")
            self.assertEqual(done.returncode, 0, done.stderr)
            return [float(size) for size in re.findall(r"compressing takes about ([\d.]+) MB", done.stderr)]
        self.assertEqual(planned(1), [])  # a processor by itself has no plan to keep to
        two, five = planned(2), planned(5)
        self.assertEqual([len(two), len(five)], [2, 5])
        self.assertGreater(two[0], two[1])
        self.assertEqual(five[:3], [two[1]] * 3)
        self.assertEqual(five[3], five[4])
        self.assertGreater(five[2], five[3])

    def test_experiment(self):
        results = []
        for ranks in (1, 2):
            path = self.experiment(directory=f"out{ranks}", compress__budget={"kind": "bpw", "value": 3.5}, compress__coding="entropy")
            self.done(ranks, "run", path)
            out = self.folder / f"out{ranks}"
            self.assertEqual(sorted(p.name for p in out.iterdir()), sorted(p.name for p in (self.folder / "out1").iterdir()))
            results.append(out)
        self.assertEqual(same_bytes(results[0] / "packed", results[1] / "packed"), [])
        compressed = [read_json(out / "compressed.json")["datasets"]["docs"]["window_nll"] for out in results]
        self.assertEqual(compressed[0], compressed[1])


@unittest.skipUnless(MPIRUN and os.path.exists(MPI_LIBRARY), "SKIP: no MPI")
class Failures(Ranks):
    ARGUMENTS = ("--coding", "entropy", "--bpw", 3)

    def test_killed_ranks(self):
        """A rank is killed at any moment: the job ends within seconds, and other numbers of ranks end in the same bytes."""
        one = self.compress(1, "whole", *self.ARGUMENTS)
        out = self.folder / "killed"
        words = ["compress", self.model, out, "--calib", f"text={self.calibration}", "--samples", 18, "--seqlen", 300,
                 *self.ARGUMENTS]
        generator = random.Random(5)
        for attempt in range(4):
            process = subprocess.Popen(command(2, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env=ENVIRONMENT, start_new_session=True)
            time.sleep(1 + 5 * generator.random())
            ranks = program.children(process.pid)
            if ranks:
                os.kill(generator.choice(ranks), signal.SIGKILL)
            if process.poll() is None:
                self.assertIsNotNone(process.wait(timeout=120))
        self.done(3, *words)
        self.assertEqual(same_bytes(one, out), [])

    def test_one_line_for_all(self):
        done = by_ranks(3, "compress", self.model, self.folder / "x", "--calib", f"text={self.calibration}", "--samples", 4,
                        "--seqlen", 600, "--coding", "entropy", "--bpw", 0.02)
        self.assertNotEqual(done.returncode, 0)
        lines = [line for line in done.stderr.splitlines() if line.startswith("mica: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn("--bpw is 0.02", lines[0])
        self.assertFalse((self.folder / "x").exists())

    @unittest.skipIf(program.SANITIZED, "SKIP: a build with sanitizers")
    def test_a_rank_alone_fails(self):
        """It says which it is."""
        script = self.folder / "limited.sh"
        script.write_text("#!/bin/sh\nif [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then ulimit -v 700000; fi\nexec \"$@\"\n")
        script.chmod(0o755)
        big = self.folder / "big"
        self.succeed("synthesize", big, "--layers", 1, "--hidden", 4096, "--heads", 32, "--ffn", 11008, "--max-positions", 512,
                     "--tokenizer", self.tokenizer)
        words = command(2, "eval", big, "--data", f"text={self.evaluation}", "--seqlen", 128, "--max-windows", 4)
        done = subprocess.run([*words[:3], str(script), *words[3:]], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("mica: ", done.stderr)

    def test_commands_of_one_process(self):
        done = by_ranks(2, "generate", self.model, "--prompt", "x")
        self.assertNotEqual(done.returncode, 0)
        lines = [line for line in done.stderr.splitlines() if line.startswith("mica: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn("one process", lines[0])

    def test_devices(self):
        for device in ("cuda:0-", "cuda:0,0", "cuda:2-1", "cuda:0-1-2", "cuda:,"):
            self.fail_with("--device", "eval", self.model, "--data", f"text={self.evaluation}", "--device", device)


def read_json_text(text):
    return program.json.loads(text)


if __name__ == "__main__":
    program.main()
