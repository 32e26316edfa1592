#!/usr/bin/env python3
"""Measures the whole job at the size of a 13B model on this machine's GPU, beside what the machine can do at most.

usage: measure_gpu.py BIN TOKENIZER WIKITEXT2 C4 FOLDER [--preset vicuna-13b]

BIN holds mica and ceilings_bench (a build's bin/ or an unpacked bundle's). FOLDER takes some 60 GB: a checkpoint of random weights of that shape, which
is made where it is not there yet, and what is packed of it. The report goes to FOLDER/report.txt and to stdout; every figure is also in the files
beside it. A step that is there already is not done again, so a stopped call goes on.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

CEILINGS = ("ProductBf16", "ProductFp32/fp32", "CopyBetween/device_to_device", "CopyBetween/pinned_to_device", "CopyBetween/host_to_device")


class Smi(threading.Thread):
    """The most memory that nvidia-smi shows while something runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.going = 0, True

    def run(self):
        while self.going:
            shown = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False)
            self.most = max([self.most, *(int(line) for line in shown.stdout.split() if line.isdigit())])
            time.sleep(1)


def cold_read_rate(path, most=4 << 30):
    """GB/s of a file that is not in the page cache."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        begin, count = time.monotonic(), 0
        while count < most and (piece := file.read(16 << 20)):
            count += len(piece)
    return count / 1e9 / (time.monotonic() - begin)


class Measurement:
    def __init__(self, options):
        self.options = options
        self.folder = options.folder
        self.model = self.folder / "model"
        self.lines = []

    def say(self, text):
        print(text, flush=True)
        self.lines.append(text)
        (self.folder / "report.txt").write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def run(self, name, *arguments):
        """Runs mica with what it says in NAME.log; seconds, and the most memory that nvidia-smi showed."""
        smi = Smi()
        smi.start()
        begin = time.monotonic()
        with open(self.folder / f"{name}.log", "w", encoding="utf-8") as log:
            subprocess.run([self.options.bin / "mica", *map(str, arguments)], check=True, stdout=log, stderr=log)
        seconds = time.monotonic() - begin
        smi.going = False
        smi.join()
        return seconds, smi.most

    def ceilings(self):
        path = self.folder / "ceilings.json"
        if not path.exists():
            subprocess.run([self.options.bin / "ceilings_bench", f"--benchmark_out={path}", "--benchmark_out_format=json"], check=True, stdout=subprocess.DEVNULL)
        failed = [one["error_message"] for one in json.loads(path.read_text())["benchmarks"] if one.get("error_occurred")]
        if failed:
            path.unlink()
            raise SystemExit(f"ceilings_bench: {failed[0]}")
        found = {one["name"].removesuffix("/real_time"): one for one in json.loads(path.read_text())["benchmarks"]}
        self.say("ceilings: " + ", ".join(
            f"{name} {found[name]['GFLOP/s'] / 1e3:.1f} TFLOP/s" if "GFLOP/s" in found[name] else f"{name} {found[name]['GB/s']:.1f} GB/s" for name in CEILINGS))
        self.flops = 1e9 * found["ProductBf16"]["GFLOP/s"]

    def synthesize(self):
        if not (self.model / "config.json").exists():
            self.run("synthesize", "synthesize", self.model, "--preset", self.options.preset, "--tokenizer", self.options.tokenizer, "--shard-bytes", "10GB",
                     "--device", "cpu")
        shards = sorted(self.model.glob("*.safetensors"))
        self.say(f"{self.model}: {sum(s.stat().st_size for s in shards) / 1e9:.1f} GB, read cold at {cold_read_rate(shards[0]):.2f} GB/s")

    def evaluate(self, name, model):
        result = self.folder / f"{name}.json"
        seconds, smi = (None, None) if result.exists() else self.run(name, "eval", model, "--data", f"wikitext2={self.options.wikitext2}", "--seqlen", 4096,
                                                                     "--device", "cuda", "-o", result)
        record = json.loads(result.read_text())
        data = record["datasets"]["wikitext2"]
        config = json.loads((self.model / "config.json").read_text())
        hidden, ffn, layers, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"))
        tokens = len(data["window_nll"]) * 4096
        flop = 2 * tokens * (layers * (4 * hidden * hidden + 3 * hidden * ffn) + vocab * hidden) + 2 * tokens * 4096 * hidden * layers
        self.say(f"{name}: {data['time']:.1f} s for {tokens} tokens, {flop / 1e15:.2f} PFLOP, {100 * flop / data['time'] / self.flops:.0f} % of the products' rate" +
                 (f"; whole command {seconds:.1f} s; {smi} MiB by nvidia-smi" if seconds else ""))

    def compress(self, name, *arguments):
        out = self.folder / name
        seconds, smi = None, None
        if not (out / "compression.json").exists():
            shutil.rmtree(out, ignore_errors=True)
            seconds, smi = self.run(name, "compress", self.model, out, "--calib", f"c4={self.options.c4}", "--device", "cuda", "--log-level", "debug", *arguments)
        record = json.loads((out / "compression.json").read_text())
        phases = ", ".join(f"{phase} {took:.1f}" for phase, took in record["time"].items() if phase != "total")
        planned = next((line for line in (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
                        if "compressing takes about" in line), "").strip()
        self.say(f"{name}: {record['time']['total']:.1f} s ({phases}); {record['bits']['bits_per_weight']:.4f} bits per weight; "
                 f"GPU {record['gpu']['peak_bytes'] / 1e9:.1f} GB, host {record['peak_memory_bytes'] / 1e9:.1f} GB" +
                 (f"; whole command {seconds:.1f} s; {smi} MiB by nvidia-smi" if seconds else ""))
        self.say(f"  {planned}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "tokenizer", "wikitext2", "c4", "folder"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--preset", default="vicuna-13b")
    options = parser.parse_args()
    if shutil.which("nvidia-smi") is None:
        print("SKIP: this machine has no NVIDIA driver")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    measurement = Measurement(options)
    measurement.say(subprocess.run([options.bin / "mica", "--version"], capture_output=True, text=True, check=True).stdout.strip())
    measurement.ceilings()
    measurement.synthesize()
    measurement.evaluate("eval-original", measurement.model)
    small = ("--coding", "entropy", "--bpw", 3.17, "--samples", 128, "--seqlen", 2048)
    experiment = ("--bits", 4.0, "--sparsity", 0.5, "--groups", 5, "--samples", 16, "--seqlen", 4096)
    measurement.compress("entropy", *small)
    measurement.evaluate("eval-entropy", options.folder / "entropy")
    measurement.compress("experiment", *experiment)
    measurement.compress("entropy-20GB", *small, "--device-memory", "20GB")
    measurement.compress("experiment-20GB", *experiment, "--device-memory", "20GB")


main()
