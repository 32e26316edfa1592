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
import typing

class Row(typing.NamedTuple):
    """One budget, and what it is held against."""
    flags: list  # of mica compress
    most_bits: float  # per weight, all stored bits
    reference: tuple | None  # WikiText2 / PTB / C4 of the best known method at these bits
    goal_c4: float


ROWS = {
    "fixed 4 bit": Row(["--bpw", "4.17", "--bit-options", "3,4,6"], 4.17, (43.64, 89.14, 48.65), 48.65),
    "fixed 3 bit": Row(["--bpw", "3.17", "--bit-options", "2,3,4,6"], 3.17, (45.54, 92.08, 50.08), 50.08),
    "50 % + 4 bit": Row(["--bpw", "3.16", "--bit-options", "2,3,4,6,8", "--sparsity", "0.5"], 3.16, (46.80, 86.92, 52.56), 52.56),
    "50 %, FP16 values": Row(["--bits", "16", "--sparsity", "0.502"], 9.00, (45.44, 84.91, 52.06), 52.06),
    "2:4 + 4 bit": Row(["--bpw", "2.91", "--bit-options", "2,3,4,6", "--pattern", "2:4"], 2.91, (57.38, 113.79, 63.21), 63.21),
    "channel widths, mean 4.0": Row(["--bits", "4.0"], 4.19, (43.92, 86.48, 48.62), 48.62),
    "channel widths, mean 3.0": Row(["--bits", "3.0"], 3.19, (44.63, 100.75, 49.88), 49.88),
    "entropy 4.17": Row(["--coding", "entropy", "--bpw", "4.17"], 4.17, (43.64, 89.14, 48.65), 48.36),
    "entropy 3.17": Row(["--coding", "entropy", "--bpw", "3.17"], 3.17, (45.54, 92.08, 50.08), 48.71),
    "entropy 2.16": Row(["--coding", "entropy", "--bpw", "2.16"], 2.16, (58.29, 135.5, 60.62), 50.5),
    "entropy 1.80": Row(["--coding", "entropy", "--bpw", "1.80"], 1.80, None, 53.6),
    "entropy, 50 % zeros": Row(["--coding", "entropy", "--bpw", "2.4", "--sparsity", "0.5"], 3.16, (46.80, 86.92, 52.56), 50.7),
}
FILES = {"wikitext2": "wikitext2.test.raw", "ptb": "ptb.test.txt", "c4": "c4.eval.jsonl"}


def evaluate(mica, model, data, name, result):
    """The result file of one set, measured now or read back."""
    if not result.exists():
        subprocess.run([mica, "eval", model, "--data", f"{name}={data / FILES[name]}", "--seqlen", "2048", "-o", result], check=True,
                       stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def compress(mica, model, data, runs, packed, flags):
    if (packed / "compression.json").exists():
        return
    # Budgets share what was measured on the original model.
    statistics = runs / ("statistics-entropy" if "entropy" in flags else "statistics-fixed")
    subprocess.run([mica, "compress", model, packed, "--calib", f"c4={data / 'c4.calib.jsonl'}", "--samples", "64", "--embedding-bits", "16",
                    "--statistics", statistics, *flags], check=True, stdout=subprocess.DEVNULL)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    mica, model, data, runs = (pathlib.Path(argument) for argument in sys.argv[1:5])
    if not model.is_dir() or not data.is_dir():
        print(f"SKIP: {model} or {data} is not there; set MICA_MODELS and MICA_DATA")
        return
    names = sys.argv[5:] or list(ROWS)
    runs.mkdir(parents=True, exist_ok=True)
    # C4 of all rows comes first: it is what the goals are about.
    results = {}
    for data_set in ("c4", "wikitext2", "ptb"):
        for row in ("baseline", *names):
            stem = "".join(c if c.isalnum() else "-" for c in row)
            if row != "baseline":
                compress(mica, model, data, runs, runs / stem, ROWS[row].flags)
            result = evaluate(mica, model if row == "baseline" else runs / stem, data, data_set, runs / f"{stem}.{data_set}.json")
            results[row, data_set] = result
            print(f"{row}: {data_set} {result['datasets'][data_set]['ppl']:.3f}", file=sys.stderr, flush=True)
    base = {name: results["baseline", name]["datasets"][name]["ppl"] for name in FILES}
    # Rows kept from an earlier call may be of an earlier commit: all are named.
    versions = sorted({f"{r['mica']['version']} ({r['mica']['commit']})" for r in results.values()})
    print(f"{datetime.date.today()}, mica {', '.join(versions)}, {model}, FP16 " + " / ".join(f"{p:.2f}" for p in base.values()))
    print("| row | bits per weight | zeros | WikiText2 | PTB | C4 | C4 excess | reference: WikiText2 / PTB / C4 | goal C4 | reached | compression, s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in names:
        wanted = ROWS[row]
        ppl = {name: results[row, name]["datasets"][name]["ppl"] for name in FILES}
        facts = results[row, "c4"]["model"]["compression"]
        bits = facts["bits"]["bits_per_weight"]
        print(f"| {row} | {bits:.4f} | {100 * facts['bits']['zero_share']:.1f} % | " + " | ".join(f"{p:.2f}" for p in ppl.values()) +
              f" | {math.log(ppl['c4'] / base['c4']):.4f} | " + (" / ".join(map(str, wanted.reference)) if wanted.reference else "none known") +
              f" | {wanted.goal_c4} | {'yes' if ppl['c4'] <= wanted.goal_c4 and bits <= wanted.most_bits else 'no'} | {facts['time']['total']:.0f} |")


main()
