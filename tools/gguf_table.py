#!/usr/bin/env python3
"""Prints the table of GGUF files: each row compresses MODEL to a budget in coding gguf and measures the file, beside llama.cpp's at the same bytes.

usage: gguf_table.py [--device DEVICE] [--windows N] MICA MODEL DATA RUNS [ROW ...]

DATA holds c4.calib.jsonl, c4.eval.jsonl, wikitext2.test.raw and ptb.test.txt. Results stay in RUNS, so a table that was stopped goes on. What llama.cpp reaches
(llama-quantize with an imatrix of the same calibration text) belongs to the checkpoint bench-gqa: KL and same top token on the first 40 windows of C4.
"""
import argparse
import datetime
import json
import pathlib

from kept_runs import run

ALONE, WHOLE = "--embedding-bits 16", ""  # decoder matrices alone, or whole files, whose ends share the budget
ROWS = {
    # name: flags of mica compress, what llama.cpp reaches
    "Q2_K_S bits": (f"--bpw 2.664 {ALONE}", "Q2_K .1639 / 75.61 % at 2.625 bits"),
    "IQ3_XXS bits": (f"--bpw 3.031 {ALONE}", "IQ3_XXS .0797 / 82.46 %"),
    "Q3_K_M bits": (f"--bpw 3.843 {ALONE}", "Q3_K_M .0296 / 88.89 %, its own ends"),
    "IQ4_XS bits": (f"--bpw 4.25 {ALONE}", "IQ4_XS .0129 / 92.51 %"),
    "Q4_K_S bits": (f"--bpw 4.535 {ALONE}", "Q4_K .0096 / 93.47 % at 4.5 bits"),
    "Q4_K_M bits": (f"--bpw 4.801 {ALONE}", "Q4_K_M .0078 / 94.04 %, its own ends"),
    "Q5_K_M bits": (f"--bpw 5.655 {ALONE}", "Q5_K_M .0026 / 96.49 %, its own ends"),
    "Q2_K alone": (f"--gguf-types Q2_K --bpw 2.625 {ALONE}", "Q2_K .1639 / 75.61 %"),
    "Q3_K alone": (f"--gguf-types Q3_K --bpw 3.4375 {ALONE}", "Q3_K .0660 / 83.46 %"),
    "IQ4_XS alone": (f"--gguf-types IQ4_XS --bpw 4.25 {ALONE}", "IQ4_XS .0129 / 92.51 %"),
    "Q4_K alone": (f"--gguf-types Q4_K --bpw 4.5 {ALONE}", "Q4_K .0096 / 93.47 %"),
    "Q2_K_S file": (f"--size 22414048 {WHOLE}", "Q2_K_S .1710 / 75.22 %"),
    "IQ2_M file": (f"--size 22280928 {WHOLE}", "IQ2_M .1165 / 78.82 %"),
    "IQ3_XXS file": (f"--size 23890656 {WHOLE}", "IQ3_XXS .0845 / 81.81 %"),
    "Q3_K_M file": (f"--size 28808416 {WHOLE}", "Q3_K_M .0296 / 88.89 %"),
    "IQ4_XS file": (f"--size 31561440 {WHOLE}", "IQ4_XS .0138 / 92.31 %"),
    "Q4_K_S file": (f"--size 33160928 {WHOLE}", "Q4_K_S .0099 / 93.25 %"),
    "Q4_K_M file": (f"--size 34416352 {WHOLE}", "Q4_K_M .0078 / 94.04 %"),
    "Q5_K_M file": (f"--size 39470816 {WHOLE}", "Q5_K_M .0026 / 96.49 %"),
}
FILES = {"c4": "c4.eval.jsonl", "wikitext2": "wikitext2.test.raw", "ptb": "ptb.test.txt"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--windows", type=int, default=40, help="of each text, 2048 tokens each")
    for name in ("mica", "model", "data", "runs"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("rows", nargs="*")
    options = parser.parse_intermixed_args()
    if not options.model.is_dir() or not options.data.is_dir():
        print(f"SKIP: {options.model} or {options.data} is not there; set MICA_MODELS and MICA_DATA")
        return
    options.runs.mkdir(parents=True, exist_ok=True)
    printed = False
    for row in options.rows or list(ROWS):
        flags, known = ROWS[row]
        stem = "".join(c if c.isalnum() else "-" for c in row)
        packed, result = options.runs / stem, options.runs / f"{stem}.json"
        if not (packed / "compression.json").exists():
            # Budgets that choose among the same types share what was measured on the original model.
            types = flags.split()[1] if "--gguf-types" in flags else ""
            statistics = options.runs / ("statistics-file" if "--size" in flags else f"statistics{types}")
            run([options.mica, "compress", options.model, packed, "--coding", "gguf", "--calib", f"c4={options.data / 'c4.calib.jsonl'}", "--samples", "64",
                 "--statistics", statistics, "--device", options.device, *flags.split()])
        if not result.exists():
            sets = [part for name, file in FILES.items() for part in ("--data", f"{name}={options.data / file}")]
            run([options.mica, "eval", packed, *sets, "--seqlen", "2048", "--max-windows", options.windows, "--reference", options.model, "--device",
                 options.device, "-o", result])
        record, found = json.loads((packed / "compression.json").read_text()), json.loads(result.read_text())
        if not printed:
            print(f"{datetime.date.today()}, mica {found['mica']['version']} ({found['mica']['commit']}), {found['settings']['device']}, {options.model.name}, "
                  f"{options.windows} windows of each text")
            print("| flags | bits of decoder matrices | file bytes | C4: KL / same top token | WikiText2 | PTB | llama.cpp, C4 | s |")
            print("|---|---|---|---|---|---|---|---|")
            printed = True
        divergences = " | ".join(f"{d['kl']:.4f} / {100 * d['same_top']:.2f} %" for d in (found["datasets"][name]["divergence"] for name in FILES))
        print(f"| `{' '.join(flags.split())}` | {record['bits']['bits_per_weight']:.4f} | {record['file']['bytes_after']} | {divergences} | {known} | "
              f"{record['time']['total']:.0f} |", flush=True)


main()
