#!/usr/bin/env python3
"""Prints the quality table: each row compresses MODEL to a budget and evaluates the packed file.

usage: quality_table.py MICA MODEL DATA RUNS [ROW ...]

DATA holds c4.calib.jsonl, c4.eval.jsonl, wikitext2.test.raw and ptb.test.txt. Results stay in RUNS, so a table that was stopped goes on. Every figure is
read from result files that mica wrote about packed checkpoints on disk; embedding and head stay at 16 bits, as in the reference figures.
"""
import datetime
import json
import math
import pathlib
import subprocess
import sys

# name: (flags, reference bits, reference WikiText2 / PTB / C4 of the best known method at these bits, goal C4 or None)
ROWS = {
    "fixed 4 bit": (["--bpw", "4.17", "--bit-options", "3,4,6"], 4.17, (43.64, 89.14, 48.65), 48.65),
    "fixed 3 bit": (["--bpw", "3.17", "--bit-options", "2,3,4,6"], 3.17, (45.54, 92.08, 50.08), 50.08),
    "50 % + 4 bit": (["--bpw", "3.16", "--bit-options", "2,3,4,6,8", "--sparsity", "0.5"], 3.16, (46.80, 86.92, 52.56), 52.56),
    "50 %, FP16 values": (["--bits", "16", "--sparsity", "0.502"], 9.00, (45.44, 84.91, 52.06), 52.06),
    "2:4 + 4 bit": (["--bpw", "2.91", "--bit-options", "2,3,4,6", "--pattern", "2:4"], 2.91, (57.38, 113.79, 63.21), 63.21),
    "channel widths, mean 4.0": (["--bits", "4.0"], 4.19, (43.92, 86.48, 48.62), 48.62),
    "channel widths, mean 3.0": (["--bits", "3.0"], 3.19, (44.63, 100.75, 49.88), 49.88),
    "entropy 4.17": (["--coding", "entropy", "--bpw", "4.17"], 4.17, (43.64, 89.14, 48.65), 48.36),
    "entropy 3.17": (["--coding", "entropy", "--bpw", "3.17"], 3.17, (45.54, 92.08, 50.08), 48.71),
    "entropy 2.16": (["--coding", "entropy", "--bpw", "2.16"], 2.16, (58.29, 135.5, 60.62), 50.5),
    "entropy 1.80": (["--coding", "entropy", "--bpw", "1.80"], 1.80, None, 53.6),
    "entropy, 50 % zeros": (["--coding", "entropy", "--bpw", "2.4", "--sparsity", "0.5"], 3.16, (46.80, 86.92, 52.56), 50.7),
}
SETS = ("wikitext2", "ptb", "c4")


def evaluate(mica, model, data, result):
    if not result.exists():
        files = {"wikitext2": "wikitext2.test.raw", "ptb": "ptb.test.txt", "c4": "c4.eval.jsonl"}
        sets = [flag for name in SETS for flag in ("--data", f"{name}={data / files[name]}")]
        subprocess.run([mica, "eval", model, *sets, "--seqlen", "2048", "-o", result], check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    mica, model, data, runs = (pathlib.Path(argument) for argument in sys.argv[1:5])
    if not model.is_dir() or not data.is_dir():
        print(f"SKIP: {model} or {data} is not there; set MICA_MODELS and MICA_DATA")
        return
    runs.mkdir(parents=True, exist_ok=True)
    base = evaluate(mica, model, data, runs / "baseline.json")
    base_ppl = [base["datasets"][name]["ppl"] for name in SETS]
    version = base["mica"]
    print(f"{datetime.date.today()}, mica {version['version']} ({version['commit']}), {base['model']['path']}, FP16 " +
          " / ".join(f"{p:.2f}" for p in base_ppl))
    print("| row | bits per weight | zeros | WikiText2 | PTB | C4 | C4 excess | reference: WikiText2 / PTB / C4 | goal C4 | reached | compression, s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in sys.argv[5:] or ROWS:
        flags, most, reference, goal = ROWS[name]
        stem = "".join(c if c.isalnum() else "-" for c in name)
        packed = runs / stem
        if not (packed / "compression.json").exists():
            # Budgets share what was measured on the original model.
            statistics = runs / ("statistics-entropy" if "entropy" in flags else "statistics-fixed")
            subprocess.run([mica, "compress", model, packed, "--calib", f"c4={data / 'c4.calib.jsonl'}", "--samples", "64", "--embedding-bits", "16",
                            "--statistics", statistics, *flags], check=True, stdout=subprocess.DEVNULL)
        result = evaluate(mica, packed, data, runs / f"{stem}.json")
        bits = result["model"]["compression"]["bits"]
        ppl = [result["datasets"][name]["ppl"] for name in SETS]
        print(f"| {name} | {bits['bits_per_weight']:.4f} | {100 * bits['zero_share']:.1f} % | " + " | ".join(f"{p:.2f}" for p in ppl) +
              f" | {math.log(ppl[2] / base_ppl[2]):.4f} | " + (" / ".join(map(str, reference)) if reference else "none known") +
              f" | {goal} | {'yes' if ppl[2] <= goal and bits['bits_per_weight'] <= most else 'no'} | "
              f"{result['model']['compression']['time']['total']:.0f} |", flush=True)


main()
