"""Fails on an include that points upward: each library of src/ may use itself and the libraries below it only."""
import os
import pathlib
import re
import sys

BELOW = {  # library -> what it may include besides itself
    "base": set(),
    "io": {"base"},
    "kernels": {"base"},
    "model": {"base", "io", "kernels"},
    "compress": {"base", "io", "kernels", "model"},
    "eval": {"base", "io", "kernels", "model"},
    "cli": {"base", "io", "kernels", "model", "compress", "eval"},
}
# A back end's headers stay in the back end's own library.
BACKENDS = {
    r"dnnl": {"kernels"}, r"cblas|lapacke": {"kernels"}, r"hwy/": {"kernels"}, r"omp\.h": {"base", "kernels"},
    r"Spectra|Eigen": {"compress"}, r"sentencepiece": {"io"}, r"zlib|zstd": {"io"}, r"openssl": {"base"},
    r"spdlog": {"base"}, r"CLI/": {"cli"},
}


def faults(source):
    found = []
    for path in sorted(source.rglob("*")):
        if path.suffix not in {".h", ".cc"}:
            continue
        library = path.relative_to(source).parts[0]
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(source.parent)}:{number}"
            own = re.match(r'\s*#\s*include\s+"(\w+)/', line)
            if own and own[1] in BELOW and own[1] != library and own[1] not in BELOW[library]:
                found.append(f"{where}: {library} must not include {own[1]}")
            other = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
            for pattern, allowed in BACKENDS.items():
                if other and re.match(pattern, other[1]) and library not in allowed:
                    found.append(f"{where}: <{other[1]}> belongs to {', '.join(sorted(allowed))} only")
    return found


source = pathlib.Path(os.environ.get("MICA_SOURCE_DIR", pathlib.Path(__file__).parent.parent)) / "src"
problems = faults(source)
print("\n".join(problems) or "every include points downward")
sys.exit(1 if problems else 0)
