#!/usr/bin/env python3
"""What sharing saves and what promises cost: a sweep of eight budgets against eight runs by hand, and searches for a loss that is allowed.

usage: measure_sweep.py [--device DEVICE] [--windows N] [--seqlen N] [--samples N] [--coding C,C] [--promises V,V] [--runs N] MICA MODEL DATA FOLDER

DATA holds c4.calib.jsonl and c4.eval.jsonl. Times are those of processors, user and system, so that other programs beside do not count; on a GPU ask for --wall.
Results stay in FOLDER, so a measurement that was stopped goes on. --runs 3 makes three of the eight runs by hand and takes their mean for the others.
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import time

from kept_runs import kept_json

BUDGETS = [2.25 + 0.25 * step for step in range(8)]


def timed(wall, *command):
    """Seconds that a program takes, which must end well; its messages are shown."""
    begin = time.monotonic()
    pid = os.posix_spawnp(str(command[0]), [str(argument) for argument in command], os.environ,
                          file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - begin if wall else usage.ru_utime + usage.ru_stime


def experiment(options, coding, directory):
    c4 = {name: str((options.data / f"c4.{name}.jsonl").resolve()) for name in ("calib", "eval")}
    return {"name": directory.name, "model": str(options.model.resolve()), "directory": str(directory.resolve()),
            "evaluate": {"data": [{"kind": "c4", "path": c4["eval"]}], "seqlen": options.seqlen, "max_windows": options.windows, "divergence": True},
            "compress": {"coding": coding, "calib": [{"kind": "c4", "path": c4["calib"]}], "samples": options.samples, "seqlen": options.seqlen},
            "samples": {"count": 0}}


def seconds(options, command, name, content):
    """Seconds of `mica COMMAND` on an experiment; measured once and kept, the files of the run are not."""
    directory = pathlib.Path(content["directory"])

    def measure():
        shutil.rmtree(directory, ignore_errors=True)
        path = options.folder / f"{name}.experiment.json"
        path.write_text(json.dumps(content))
        taken = timed(options.wall, options.mica, command, path, "--device", options.device, "--log-level", "warning")
        shutil.rmtree(directory, ignore_errors=True)
        return json.dumps({"seconds": taken})

    return kept_json(options.folder / f"{name}.seconds.json", measure)["seconds"]


def search(options, coding, promise):
    """How a search for a loss went: the points that it made and what was measured from the last file."""
    name = f"{coding}-kl-{promise}"

    def measure():
        packed = options.folder / name
        shutil.rmtree(packed, ignore_errors=True)
        taken = timed(options.wall, options.mica, "compress", options.model, packed, "--coding", coding, "--max-kl", promise,
                      "--data", f"c4={options.data / 'c4.eval.jsonl'}", "--max-windows", options.windows, "--calib", f"c4={options.data / 'c4.calib.jsonl'}",
                      "--samples", options.samples, "--seqlen", options.seqlen, "--device", options.device, "--log-level", "warning")
        record = json.loads((packed / "compression.json").read_text())
        shutil.rmtree(packed, ignore_errors=True)
        return json.dumps({"seconds": taken, "record": record})

    return kept_json(options.folder / f"{name}.search.json", measure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--coding", default="fixed,entropy")
    parser.add_argument("--promises", default=".03,.01,.003")
    parser.add_argument("--runs", type=int, default=len(BUDGETS), help="how many of the runs by hand are made")
    parser.add_argument("--wall", action="store_true", help="seconds of a clock instead of processors")
    for name in ("mica", "model", "data", "folder"):
        parser.add_argument(name, type=pathlib.Path)
    options = parser.parse_args()
    if not options.model.is_dir() or not options.data.is_dir():
        print(f"SKIP: {options.model} or {options.data} is not there; set MICA_MODELS and MICA_DATA")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{datetime.date.today()}, {options.model.name}, {options.samples} x {options.seqlen} calibration tokens, {options.windows} windows of {options.seqlen} of C4, "
          f"{options.device}, seconds of {'a clock' if options.wall else 'processors'}")
    for coding in filter(None, options.coding.split(",")):
        content = experiment(options, coding, options.folder / f"{coding}-sweep")
        content["sweep"] = {"budget": {"kind": "bpw", "value": BUDGETS}, "keep": "none"}
        whole = seconds(options, "sweep", f"{coding}-sweep", content)
        made = BUDGETS[::max(1, len(BUDGETS) // options.runs)][:options.runs]
        single = []
        for bits in made:
            content = experiment(options, coding, options.folder / f"{coding}-{bits}")
            content["compress"]["budget"] = {"kind": "bpw", "value": bits}
            single.append(seconds(options, "run", f"{coding}-{bits}", content))
        eight = sum(single) * len(BUDGETS) / len(made)
        print(f"{coding}, {BUDGETS[0]} to {BUDGETS[-1]} bits a weight: sweep {whole:.0f}, eight runs {eight:.0f} ({len(made)} made: "
              f"{' '.join(f'{one:.0f}' for one in single)}): ratio {whole / eight:.3f}", flush=True)
    for coding in filter(None, options.coding.split(",")):
        for promise in filter(None, options.promises.split(",")):
            found = search(options, coding, promise)
            quality = found["record"]["quality"]
            trials = "; ".join(f"{trial['budget']:.3f} {trial['measured']:.5f}" for trial in quality["trials"])
            print(f"{coding}, --max-kl {promise}: {len(quality['trials'])} compressions (bits, KL: {trials}), {100 * quality['measured'] / float(promise):.0f} % of it "
                  f"at {found['record']['bits']['bits_per_weight']:.4f} bits a weight, {found['seconds']:.0f} s", flush=True)


main()
