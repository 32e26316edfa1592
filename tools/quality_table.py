#!/usr/bin/env python3
"""Prints the quality table: each row compresses MODEL to a budget and evaluates the packed file.

usage: quality_table.py [--device DEVICE] MICA MODEL DATA RUNS [ROW ...]

DATA holds c4.calib.jsonl, c4.eval.jsonl, wikitext2.test.raw and ptb.test.txt. Results stay in RUNS, so a table that was stopped goes on. Every figure is
read from result files that mica wrote about packed checkpoints on disk; embedding and head stay at 16 bits, as in the figures of the known methods,
which belong to the checkpoint bench-gqa.
"""
import argparse
import datetime
import json
import math
import pathlib
import typing

from kept_runs import run


class Row(typing.NamedTuple):
    """One budget, and what known methods do at these bits or more."""
    flags: str  # of mica compress
    most_bits: float  # per weight, all stored bits
    known: str  # excess on C4 / KL / same top token


ROWS = {
    "entropy 4.05": Row("--coding entropy --bpw 4.05", 4.05, "EXL3 .0057 / .0063 / 94.74 %, a bitrate for each matrix .0029 / .0037 / 95.96 %"),
    "entropy 3.05": Row("--coding entropy --bpw 3.05", 3.05, "EXL3 .0214 / .0262 / 89.53 %, a bitrate for each matrix .0141 / .0165 / 91.78 %"),
    "entropy 2.05": Row("--coding entropy --bpw 2.05", 2.05, "EXL3 .1108 / .1350 / 77.94 %, a bitrate for each matrix .0826 / .0966 / 80.99 %"),
    "entropy 1.80": Row("--coding entropy --bpw 1.80", 1.80, "none"),
    "entropy 2.40, 50 % zeros": Row("--coding entropy --bpw 2.4 --sparsity 0.5", 2.40, "SparseGPT + 4 bit, 3.16 bits: .1244 / .1506 / 76.93 %"),
    "fixed 4.17": Row("--bpw 4.17 --bit-options 3,4,6", 4.17, "GPTQ, 4.18 bits: .0112 / .0142 / 92.35 %"),
    "fixed 3.17": Row("--bpw 3.17 --bit-options 2,3,4,6", 3.17, "GPTQ: .0539 / .0655 / 84.13 %"),
    "fixed 2.16": Row("--bpw 2.16 --bit-options 2,3,4", 2.16, "GPTQ: .2994 / .3326 / 67.09 %"),
    "channel widths, mean 4.0": Row("--bits 4.0", 4.19, "none"),
    "channel widths, mean 3.0": Row("--bits 3.0", 3.19, "none"),
    "50 % zeros, 3.15": Row("--bpw 3.15 --bit-options 2,3,4,6,8 --sparsity 0.5", 3.15, "SparseGPT + 4 bit, 3.16 bits: .1244 / .1506 / 76.93 %"),
    "50 % zeros, FP16 values": Row("--bits 16 --sparsity 0.502", 9.00, "SparseGPT: .0979 / .1217 / 78.96 %"),
    "2:4, 2.90": Row("--bpw 2.90 --bit-options 2,3,4,6 --pattern 2:4", 2.90, "SparseGPT 2:4 + 4 bit, 2.91 bits: .3422 / .3883 / 65.16 %"),
}
FILES = {"wikitext2": "wikitext2.test.raw", "ptb": "ptb.test.txt", "c4": "c4.eval.jsonl"}
DIVERGENCE_WINDOWS = 40  # of C4


def evaluate(options, model, result, name, *more):
    """The result file of one set, measured now or read back."""
    if not result.exists():
        run([options.mica, "eval", model, "--data", f"{name}={options.data / FILES[name]}", "--seqlen", "2048", "--device", options.device, "-o", result,
             *more])
    return json.loads(result.read_text())


def compress(options, packed, flags):
    if (packed / "compression.json").exists():
        return
    # Budgets share what was measured on the original model.
    statistics = options.runs / ("statistics-entropy" if "entropy" in flags else "statistics-fixed")
    run([options.mica, "compress", options.model, packed, "--calib", f"c4={options.data / 'c4.calib.jsonl'}", "--samples", "64", "--embedding-bits", "16",
         "--statistics", statistics, "--device", options.device, *flags.split()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    for name in ("mica", "model", "data", "runs"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("rows", nargs="*")
    options = parser.parse_intermixed_args()
    if not options.model.is_dir() or not options.data.is_dir():
        print(f"SKIP: {options.model} or {options.data} is not there; set MICA_MODELS and MICA_DATA")
        return
    names = options.rows or list(ROWS)
    options.runs.mkdir(parents=True, exist_ok=True)
    results = {}
    for row in ("baseline", *names):
        stem = "".join(c if c.isalnum() else "-" for c in row)
        packed = options.model if row == "baseline" else options.runs / stem
        if row != "baseline":
            compress(options, packed, ROWS[row].flags)
            results[row, "divergence"] = evaluate(options, packed, options.runs / f"{stem}.divergence.json", "c4", "--reference", options.model,
                                                  "--max-windows", DIVERGENCE_WINDOWS)
        for data_set in FILES:
            results[row, data_set] = evaluate(options, packed, options.runs / f"{stem}.{data_set}.json", data_set)
    base = {name: results["baseline", name]["datasets"][name]["ppl"] for name in FILES}
    # Rows kept from an earlier call may be of an earlier commit: all are named.
    versions = sorted({f"{r['mica']['version']} ({r['mica']['commit']})" for r in results.values()})
    devices = sorted({r["settings"]["device"] for r in results.values()})
    print(f"{datetime.date.today()}, mica {', '.join(versions)}, {', '.join(devices)}, {options.model.name}, 16 bits " +
          " / ".join(f"{p:.3f}" for p in base.values()))
    print("| setting | bits per weight | zeros | WikiText2 | PTB | C4 | excess | KL | same top token | known: excess / KL / same top token | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in names:
        wanted = ROWS[row]
        ppl = {name: results[row, name]["datasets"][name]["ppl"] for name in FILES}
        facts = results[row, "c4"]["model"]["compression"]
        divergence = results[row, "divergence"]["datasets"]["c4"]["divergence"]
        bits = facts["bits"]["bits_per_weight"]
        beyond = "" if bits <= wanted.most_bits else f" (more than {wanted.most_bits})"
        print(f"| `{wanted.flags}` | {bits:.4f}{beyond} | {100 * facts['bits']['zero_share']:.1f} % | " + " | ".join(f"{p:.3f}" for p in ppl.values()) +
              f" | {math.log(ppl['c4'] / base['c4']):.4f} | {divergence['kl']:.4f} | {100 * divergence['same_top']:.2f} % | {wanted.known}" +
              f" | {facts['time']['total']:.0f} |")


main()
