"""Kills mica at random moments, lets the same command go on, and compares what it ends in with an undisturbed run.

usage: kill_and_resume.py MICA [KILLS] [SEED]

KILLS times (default 100) each of `compress` in coding fixed, `compress` in coding entropy and `run` is ended by SIGKILL at a
moment drawn evenly from the time that an undisturbed run takes, then repeated until it has ended. One that had ended before its
moment came is no kill and does not count. Prints a line for each, and exits with 1 when anything differs or is left behind.
"""
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent
TIMES = {"time", "phases", "seconds", "tokens_per_second", "created", "host", "peak_memory_bytes"}


def untimed(value):
    """A result without what differs from run to run: times, memory, host."""
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key not in TIMES}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def content(path):
    if path.name == "status.json":
        return json.loads(path.read_text(encoding="utf-8")).get("stage")
    if path.suffix == ".json":
        return untimed(json.loads(path.read_text(encoding="utf-8")))
    if path.name.startswith("comparison."):
        return None  # reports print times
    return path.read_bytes()


def snapshot(folder):
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


class Job:
    """One command that writes the directory `out` of its folder."""

    def __init__(self, mica, folder, arguments):
        self.command = [str(mica), *map(str, arguments)]
        self.folder, self.out = folder, folder / "out"

    def start(self):
        return subprocess.Popen(self.command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self):
        process = self.start()
        _, errors = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(self.command)}: exit code {process.returncode}: {errors[-500:]}")

    def whole(self):
        """The seconds of an undisturbed run, and what it ends in."""
        began = time.monotonic()
        self.finish()
        seconds = time.monotonic() - began
        result = snapshot(self.out)
        shutil.rmtree(self.out)
        return seconds, result

    def killed(self, after):
        """What it ends in when it is killed `after` seconds and repeated; whether it was still running then."""
        process = self.start()
        time.sleep(after)
        hit = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.finish()
        result = snapshot(self.out)
        shutil.rmtree(self.out)
        return hit, result


def jobs(mica, folder):
    model, text = folder / "model", folder / "text.txt"
    subprocess.run([mica, "synthesize", model, "--tokenizer", SOURCE / "models" / "demo", "--layers", "3", "--hidden", "128", "--ffn", "192",
                    "--heads", "4"], check=True, capture_output=True)
    text.write_text((SOURCE / "LICENSE").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "measured.txt").write_text((SOURCE / "docs" / "architecture.md").read_text(encoding="utf-8"), encoding="utf-8")
    base = ["compress", model, "out", "--calib", f"text={text}", "--samples", 8, "--seqlen", 128]
    (folder / "experiment.json").write_text(json.dumps({
        "name": "killed", "model": "model", "directory": "out",
        "evaluate": {"data": [{"kind": "text", "name": "docs", "path": "measured.txt"}], "seqlen": 128, "max_windows": 4},
        "compress": {"budget": {"kind": "bits", "value": 4}, "sparsity": 0.5, "samples": 8, "seqlen": 128,
                     "calib": [{"kind": "text", "path": "text.txt"}]}}), encoding="utf-8")
    return {"compress, fixed": Job(mica, folder, [*base, "--bits", 4, "--sparsity", 0.5]),
            "compress, entropy": Job(mica, folder, [*base, "--coding", "entropy", "--bpw", 3]),
            "run": Job(mica, folder, ["run", "experiment.json"])}


def check(mica, kills, seed, report=print):
    """The number of trials that ended in something else."""
    random.seed(seed)
    wrong = 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mica_kill_"))
    try:
        for name, job in jobs(pathlib.Path(mica).resolve(), folder).items():
            _, whole = job.whole()
            seconds, _ = job.whole()  # with everything in the page cache
            hits = differing = trials = 0
            while hits < kills:
                hit, result = job.killed(random.uniform(0, seconds))
                hits += hit
                trials += 1
                if not hit:  # it was quicker than the undisturbed run
                    seconds *= 0.95
                if result != whole:
                    differing += 1
                    report(f"{name}: differs in {sorted(k for k in result.keys() | whole.keys() if result.get(k) != whole.get(k))}")
            report(f"{name}: {hits} times killed while it worked, in {trials} trials; {differing} ended in something else")
            wrong += differing
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(1 if check(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100, int(sys.argv[3]) if len(sys.argv) > 3 else 1) else 0)
