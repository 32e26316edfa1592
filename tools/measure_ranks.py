#!/usr/bin/env python3
"""Measures the whole job on one GPU and on several of this host, and compares what comes out byte for byte.

usage: measure_ranks.py BIN TOKENIZER WIKITEXT2 C4 FOLDER [--gpus 1,2,4,8] [--steps NAME,...]

BIN holds mica (a build's bin/ or an unpacked bundle's); NCCL is found where LD_LIBRARY_PATH says. FOLDER takes some 80 GB: checkpoints of random weights,
made where they are not there yet, and what is packed of them. Steps: eval13 (83 windows of 4096), compress13 (entropy, 3.17 bits, 128 x 2048), compress70
(eight layers of a 70B model's shape, the same), kill (a rank of a compression is killed at random moments, then it goes on). The report goes to
FOLDER/ranks.txt and to stdout. A step that is there already is not done again, so a stopped call goes on.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

SHAPES = {
    "model13": ("--preset", "vicuna-13b"),
    "model70": ("--layers", 8, "--hidden", 8192, "--ffn", 28672, "--heads", 64, "--kv-heads", 8, "--vocab", 32000, "--max-positions", 4096),
    "small": ("--layers", 4, "--hidden", 1024, "--ffn", 2816, "--heads", 8, "--vocab", 32000, "--max-positions", 4096),
}
ENTROPY = ("--coding", "entropy", "--bpw", 3.17, "--samples", 128, "--seqlen", 2048)


def digest(folder, pattern="*.safetensors"):
    """One hash of the weight files."""
    every = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        with open(path, "rb") as file:
            every.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return every.hexdigest()[:16]


class Measurement:
    def __init__(self, options):
        self.options, self.folder, self.lines = options, options.folder, []

    def say(self, text):
        print(text, flush=True)
        self.lines.append(text)
        with open(self.folder / "ranks.txt", "a", encoding="utf-8") as report:
            report.write(text + "\n")

    @staticmethod
    def device(gpus):
        return "cuda:0" if gpus == 1 else f"cuda:0-{gpus - 1}"

    def words(self, gpus, *arguments):
        return [str(self.options.bin / "mica"), *map(str, arguments), "--device", self.device(gpus), "--log-level", "debug"]

    def run(self, name, gpus, *arguments):
        begin = time.monotonic()
        with open(self.folder / f"{name}.log", "w", encoding="utf-8") as log:
            done = subprocess.run(self.words(gpus, *arguments), stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            self.say(f"{name}: exit code {done.returncode}: " + (self.folder / f"{name}.log").read_text(errors="replace").strip().split("\n")[-1])
            return None
        return time.monotonic() - begin

    def model(self, name):
        path = self.folder / name
        if not (path / "config.json").exists():
            shutil.rmtree(path, ignore_errors=True)
            subprocess.run([self.options.bin / "mica", "synthesize", path, *map(str, SHAPES[name]), "--tokenizer", self.options.tokenizer, "--shard-bytes", "10GB",
                            "--device", "cpu", "--log-level", "error"], check=True)
        return path

    def evaluate(self, name, model):
        first = None
        for gpus in self.options.gpus:
            result = self.folder / f"{name}.{gpus}.json"
            seconds = None if result.exists() else self.run(f"{name}.{gpus}", gpus, "eval", model, "--data", f"wikitext2={self.options.wikitext2}", "--seqlen",
                                                            4096, "-o", result)
            if not result.exists():
                continue
            found = json.loads(result.read_text())["datasets"]["wikitext2"]
            first = first or found
            same = "the same figures" if found["window_nll"] == first["window_nll"] else "OTHER FIGURES"
            self.say(f"{name}, {gpus} GPU: {found['time']:.1f} s, {first['time'] / found['time']:.2f} x; {same}" + (f"; whole command {seconds:.1f} s" if seconds else ""))

    def compress(self, name, model, *arguments):
        first = None
        for gpus in self.options.gpus:
            out = self.folder / f"{name}.{gpus}"
            seconds = None
            if not (out / "compression.json").exists():
                shutil.rmtree(out, ignore_errors=True)
                seconds = self.run(out.name, gpus, "compress", model, out, "--calib", f"c4={self.options.c4}", "--statistics",
                                   self.folder / f"{name}.{gpus}.statistics", *arguments)
            if not (out / "compression.json").exists():
                continue
            record = json.loads((out / "compression.json").read_text())
            found = {"time": record["time"]["total"], "shards": digest(out)}
            found["statistics"] = hashlib.sha256((self.folder / f"{name}.{gpus}.statistics").read_bytes()).hexdigest()[:16]
            first = first or found
            same = "the same bytes" if found["shards"] == first["shards"] else "OTHER BYTES"
            same += ", the same statistics" if found["statistics"] == first["statistics"] else ", OTHER STATISTICS"
            phases = ", ".join(f"{phase} {took:.1f}" for phase, took in record["time"].items() if phase != "total")
            self.say(f"{name}, {gpus} GPU: {found['time']:.1f} s ({phases}), {first['time'] / found['time']:.2f} x; {same}; "
                     f"GPU {record['gpu']['peak_bytes'] / 1e9:.1f} GB" + (f"; whole command {seconds:.1f} s" if seconds else ""))

    def kill(self, times=20):
        """Of the small model on all GPUs; the longest time from a rank's end to that of the job."""
        gpus, model, generator, slowest, kills = max(self.options.gpus), self.model("small"), random.Random(1), 0.0, 0
        arguments = ("--coding", "entropy", "--bpw", 3.17, "--samples", 16, "--seqlen", 2048, "--calib", f"c4={self.options.c4}")
        whole, out = self.folder / "kill.whole", self.folder / "kill.out"
        for path in (whole, out):
            shutil.rmtree(path, ignore_errors=True)
        seconds = self.run("kill.whole", 1, "compress", model, whole, *arguments)
        if seconds is None:
            return
        while kills < times:
            process = subprocess.Popen(self.words(gpus, "compress", model, out, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1 + seconds * generator.random())
            tasks = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
            ranks = tasks.read_text().split() if process.poll() is None else []
            begin = time.monotonic()
            if ranks:
                os.kill(int(generator.choice(ranks)), signal.SIGKILL)
                kills += 1
            process.wait(timeout=120)
            slowest = max(slowest, time.monotonic() - begin) if ranks else slowest
            if (out / "compression.json").exists():
                shutil.rmtree(out)  # it had ended before
        self.run("kill.out", gpus, "compress", model, out, *arguments)
        same = "the same bytes" if digest(whole) == digest(out) else "OTHER BYTES"
        self.say(f"kill: {kills} ranks killed, the job ended within {slowest:.1f} s; {same}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "tokenizer", "wikitext2", "c4", "folder"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--gpus", default="1,2,4,8")
    parser.add_argument("--steps", default="eval13,compress13,compress70,kill")
    options = parser.parse_args()
    if shutil.which("nvidia-smi") is None:
        print("SKIP: this machine has no NVIDIA driver")
        return
    there = len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.strip().split("\n"))
    options.gpus = [count for count in map(int, options.gpus.split(",")) if count <= there]
    options.folder.mkdir(parents=True, exist_ok=True)
    measurement = Measurement(options)
    measurement.say(subprocess.run([options.bin / "mica", "--version"], capture_output=True, text=True, check=True).stdout.strip() + f", {there} GPUs")
    for step in options.steps.split(","):
        if step == "eval13":
            measurement.evaluate(step, measurement.model("model13"))
        elif step == "compress13":
            measurement.compress(step, measurement.model("model13"), *ENTROPY)
        elif step == "compress70":
            measurement.compress(step, measurement.model("model70"), *ENTROPY)
        elif step == "kill":
            measurement.kill()
        else:
            raise SystemExit(f"--steps names {step}")


main()
