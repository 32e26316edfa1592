#!/usr/bin/env python3
"""Prints the table of generation on the processor: coding entropy and the plain original beside llama.cpp's Q4_K_M of the same shape, in one run.

usage: generate_table.py [--threads N] [--rounds N] [--prompt N] [--generated N] MICA TOKENIZER TEXT FOLDER [ROW ...]

The model has random weights and some 3e9 of them: LLaMA's layers, 26 of hidden 3072, FFN 8192, 24 heads of 128, vocabulary 32000 (llama.cpp's types have rows of
whole blocks of 256). Its files are made in FOLDER, 25 GB, where they are not there: `mica synthesize`; for llama.cpp `mica export --to gguf`, then llama.cpp's own
quantiser; for coding entropy one layer is compressed and stands in all 26 (repeat_layers.py). A round measures each row once, one after the other, on a machine that may
have other things to do: ratios are medians of those within a round. What was measured stays in FOLDER/runs. llama.cpp is in the npm package node-llama-cpp, MICA_NODE_LLAMA names the
node_modules directory; without it SKIP.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys

from kept_runs import kept_json, run, run_watched
from repeat_layers import repeat

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))
import llama_cpp  # noqa: E402

LAYERS, HIDDEN, FFN, VOCAB = 26, 3072, 8192, 32000
SHAPE = f"--hidden {HIDDEN} --ffn {FFN} --heads 24 --vocab {VOCAB}".split()
WEIGHTS = HIDDEN * (LAYERS * (4 * HIDDEN + 3 * FFN) + 2 * VOCAB)
COMPRESS = "--coding entropy --preset fast --samples 4 --seqlen 128 --embedding-bits 8".split()
LLAMA, PLAIN, EVALUATION = "llama.cpp Q4_K_M", "original, FP16", "evaluation of the original"
ROWS = {LLAMA: None, "entropy 3.05": "3.05", "entropy 2.05": "2.05", PLAIN: None, EVALUATION: None}


class Table:
    def __init__(self, options):
        self.options, self.folder = options, options.folder
        self.runs = self.folder / "runs"
        self.runs.mkdir(parents=True, exist_ok=True)

    def mica(self, *arguments):
        return [self.options.mica, *arguments, "--device", "cpu", "--threads", self.options.threads, "--log-level", "error"]

    def plain(self, layers=LAYERS):
        model = self.folder / f"plain-{layers}"
        if not (model / "config.json").exists():
            run(self.mica("synthesize", model, "--layers", layers, *SHAPE, "--tokenizer", self.options.tokenizer))
        return model

    def packed(self, bits):
        deep = self.folder / f"entropy-{bits}"
        if not (deep / "config.json").exists():
            one = self.folder / f"entropy-{bits}-one-layer"
            if not (one / "compression.json").exists():
                run(self.mica("compress", self.plain(1), one, *COMPRESS, "--bpw", bits, "--calib", f"text={self.options.text}"))
            repeat(one, LAYERS, deep)
        return deep

    def quantised(self):
        file, whole = self.folder / "q4_k_m.gguf", self.folder / "plain.gguf"
        if not file.exists():
            run(self.mica("export", self.plain(), "--to", "gguf", "-o", whole))
            unfinished = self.folder / "unfinished.gguf"
            llama_cpp.LlamaCpp(llama_cpp.find()[0]).quantize(whole, unfinished, "Q4_K_M")
            unfinished.rename(file)
            whole.unlink()
        return file

    def file_of(self, row):
        return self.quantised() if row == LLAMA else self.packed(ROWS[row]) if ROWS[row] else self.plain()

    def measured(self, row, prompt, generated):
        """What one process finds: {"prompt", "decode", "load_seconds", "anonymous", ...}."""
        file, threads = self.file_of(row), self.options.threads
        if row == LLAMA:
            out, anonymous = run_watched([sys.executable, TESTS / "llama_cpp.py", file, prompt, generated, 1, threads])
            found = json.loads(out)
            found = {"prompt": sum(found["prompt"]), "decode": sum(found["decode"]), "load_seconds": found["load_seconds"], "file_bytes": file.stat().st_size}
        elif row == EVALUATION:
            out, anonymous = run_watched(self.mica("eval", file, "--data", f"text={self.options.text}", "--seqlen", prompt, "--max-windows", 1, "--json"))
            found = {"prompt": json.loads(out)["datasets"]["text"]["tokens_per_second"]}
        else:
            out, anonymous = run_watched(self.mica("bench", file, "--prompt-tokens", prompt, "--generated-tokens", generated, "--repetitions", 1, "--json"))
            result = json.loads(out)
            model = result["models"][0]
            found = {**model, "prompt": model["prompt"]["tokens_per_second"], "decode": model["decode"]["tokens_per_second"],
                     "read_bytes_per_second": result["read_bytes_per_second"]}
        return json.dumps({**found, "anonymous": anonymous})

    def kept(self, row, name, prompt, generated):
        stem = "".join(c if c.isalnum() else "-" for c in row)
        return kept_json(self.runs / f"{stem}.{name}.json", lambda: self.measured(row, prompt, generated))

    def print(self, rows):
        for row in rows:
            self.file_of(row)
        found = {row: [] for row in rows}
        for number in range(self.options.rounds):
            for row in rows:
                found[row].append(self.kept(row, number, self.options.prompt, self.options.generated))
        print(f"{datetime.date.today()}, {LAYERS} layers, {' '.join(SHAPE)}, {WEIGHTS / 1e9:.2f}e9 weights, {self.options.threads} threads, medians of {self.options.rounds} rounds")
        print(f"| | bits a weight in memory | memory of weights | most anonymous memory while loading | loaded, 1e9 weights/s a thread | prompt of {self.options.prompt}, tokens/s | of llama.cpp's "
              f"| generating {self.options.generated}, tokens/s | of llama.cpp's | of the memory's speed |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for row in rows:
            self.print_row(row, found)

    def print_row(self, row, found):
        def median(of):
            values = [of(one) for one in found[row]]
            return statistics.median(values)

        def ratio(what):
            if LLAMA not in found:
                return ""
            return f"{statistics.median(one[what] / other[what] for one, other in zip(found[row], found[LLAMA])):.2f}"
        cells = [row]
        if row == EVALUATION:
            cells += ["", "", "", "", f"{median(lambda one: one['prompt']):.1f}", ratio("prompt"), "", "", ""]
        else:
            resident = found[row][0].get("weight_bytes", found[row][0]["file_bytes"])
            # One token behind it: the most that this takes of memory is what loading takes.
            loading = self.kept(row, "loading", 0, 1)
            speed = median(lambda one: WEIGHTS / one["load_seconds"] / self.options.threads)
            share = "" if row == LLAMA else f"{100 * median(lambda one: one['decode'] * one['bytes_per_token'] / one['read_bytes_per_second']):.0f} %"
            cells += [f"{8 * resident / WEIGHTS:.2f}", f"{resident / 1e9:.2f} GB", f"{loading['anonymous'] / 1e9:.2f} GB, {loading['anonymous'] / resident:.2f} times",
                      f"{speed / 1e9:.2f}", f"{median(lambda one: one['prompt']):.1f}", ratio("prompt"), f"{median(lambda one: one['decode']):.2f}", ratio("decode"), share]
        print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generated", type=int, default=64)
    for name in ("mica", "tokenizer", "text", "folder"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("rows", nargs="*", help=", ".join(ROWS))
    options = parser.parse_intermixed_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(ROWS)}")
    folder, why = llama_cpp.find()
    if folder is None:
        print(f"SKIP: {why}")
        return
    Table(options).print(options.rows or list(ROWS))


main()
