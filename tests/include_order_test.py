"""Fails on an include that points upward: each folder of src/ may use itself and what lies below it, transitively."""
import os
import pathlib
import re
import sys

ARROWS = {  # folder -> what it stands on
    "base": set(),
    "device": {"base"},
    "format": {"base"},
    "ops": {"device", "format"},
    "io": {"format"},
    "record": {"base"},
    "model": {"ops", "io", "record"},
    "compress": {"model"},
    "generate": {"model"},
    "eval": {"generate"},
    "experiment": {"compress", "eval"},
    "cli": {"experiment"},
}
# Sub-folders of one folder that may not include each other freely, each standing on those before it. Files beside
# them stand above them all.
STAGES = {
    "compress": ["calibrate", "curvature", "inform", "budget", "coder", "fixed", "blocks", "entropy"],
    "eval": ["measure", "report"],
    "generate": ["template"],
    "io": ["text", "container", "packed"],
}
# A back end's headers stay in the back end's own library.
BACKENDS = {
    r"dnnl": {"ops"}, r"cblas|lapacke": {"ops"}, r"hwy/": {"ops"}, r"omp\.h": {"base", "ops"},
    r"Spectra|Eigen": {"compress"}, r"sentencepiece": {"io"}, r"zlib|zstd": {"io"},
    r"pcre2": {"io/text"}, r"utf8proc": {"io/text", "generate/template"}, r"openssl": {"base"},
    r"spdlog": {"base"}, r"CLI/": {"cli"}, r"histedit": {"cli"}, r"cuda|cublas|cusolver": {"device", "ops"},
}


def below(folder):
    return set().union(*({other} | below(other) for other in ARROWS[folder])) if ARROWS[folder] else set()


def rank(path, folder):
    """Place of a file among the stages of its folder; files beside them come last."""
    stages = STAGES[folder]
    return stages.index(path[1]) if len(path) > 2 and path[1] in stages else len(stages)


def fault(source, target):
    """What is wrong with an include of `target` in `source`, both as parts of a path below src/; None when nothing."""
    if target[0] not in ARROWS:
        return None
    if target[0] != source[0]:
        return None if target[0] in below(source[0]) else f"{source[0]} must not include {target[0]}"
    if source[0] in STAGES and rank(target, source[0]) > rank(source, source[0]):
        return f"{'/'.join(source[:2])} must not include {'/'.join(target[:2])}"
    return None


def faults(tree):
    found = []
    for path in sorted(tree.rglob("*")):
        if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
            continue
        parts = path.relative_to(tree).parts
        if parts[0] not in ARROWS:
            found.append(f"{path.relative_to(tree.parent)}: {parts[0]} is not a folder of the layout")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(tree.parent)}:{number}"
            own = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            wrong = fault(parts, tuple(own[1].split("/"))) if own else None
            if wrong:
                found.append(f"{where}: {wrong}")
            other = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
            for pattern, allowed in BACKENDS.items():
                if other and re.match(pattern, other[1]) and not {parts[0], "/".join(parts[:2])} & allowed:
                    found.append(f"{where}: <{other[1]}> belongs to {', '.join(sorted(allowed))} only")
            if other and re.match("cuda|cublas|cusolver", other[1]) and "cuda" not in path.name:
                found.append(f"{where}: <{other[1]}> belongs to files named *_cuda.* and cuda_* only")
    return found


# The rules themselves: what must be refused is.
assert fault(("base", "a.cc"), ("io", "x", "y.h")) and fault(("ops", "a", "b.cc"), ("io", "x", "y.h"))
assert fault(("compress", "calibrate", "a.cc"), ("compress", "inform", "b.h"))
assert fault(("compress", "inform", "a.cc"), ("compress", "settings.h"))
assert not fault(("compress", "pipeline.cc"), ("compress", "fixed", "b.h"))
assert not fault(("cli", "a.cc"), ("base", "b.h"))
source = pathlib.Path(os.environ.get("MICA_SOURCE_DIR", pathlib.Path(__file__).parent.parent)) / "src"
problems = faults(source)
print("\n".join(problems) or "every include points downward")
sys.exit(1 if problems else 0)
