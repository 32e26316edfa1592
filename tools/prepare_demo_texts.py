#!/usr/bin/env python3
"""Makes the demo's texts from Debian packages: three evaluation sets and one calibration text, all English prose.

usage: prepare_demo_texts.py OUT

Downloads (apt-get download, nothing is installed) fortunes, developers-reference, perl-doc and debian-policy, keeps the prose and
drops markup, tables, listings and headings. Evaluation: fortunes.txt (quotations), developers-reference.txt (a manual), perl-doc.txt
(a tutorial and questions with answers). Calibration: calibration.txt, from other files than those three.
"""
import gzip
import pathlib
import re
import subprocess
import sys
import tempfile

PACKAGES = ["fortunes", "developers-reference", "perl-doc", "debian-policy"]


def unpack(folder):
    """Downloads and unpacks PACKAGES below `folder`."""
    subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", *PACKAGES], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for package in PACKAGES:
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)


def find(folder, name):
    """The text of the one file called `name` below `folder` (maybe .gz)."""
    paths = sorted(path for path in folder.rglob(name + "*") if path.name in (name, name + ".gz") and path.is_file())
    if not paths:
        sys.exit(f"prepare_demo_texts: no file {name} in the packages {', '.join(PACKAGES)}")
    data = paths[0].read_bytes()
    return (gzip.decompress(data) if paths[0].suffix == ".gz" else data).decode("utf-8", "ignore")


def paragraphs(text, shortest=60):
    """Paragraphs that read as prose: joined lines, mostly letters, at least one sentence end."""
    for block in re.split(r"\n\s*\n", text):
        line = " ".join(block.split())
        letters = sum(c.isalpha() or c == " " for c in line)
        if len(line) >= shortest and letters > 0.85 * len(line) and re.search(r"[.!?]", line):
            yield line


def fortunes(folder, names):
    """Quotations, without the lines that credit them."""
    for name in names:
        for quotation in find(folder, name).split("\n%\n"):
            lines = [line for line in quotation.splitlines() if not re.match(r"\s*--", line)]
            yield from paragraphs("\n".join(lines))


def pod(folder, names):
    """Paragraphs of POD files, without commands, verbatim blocks and formatting codes."""
    for name in names:
        blocks = re.split(r"\n\s*\n", find(folder, name))
        text = "\n\n".join(block for block in blocks if block and not block[0].isspace() and not block.startswith("="))
        for _ in range(3):  # codes nest: B<I<word>>
            text = re.sub(r"L<([^<>|]*)\|[^<>]*>", r"\1", text)
            text = re.sub(r"\b[BICEFLSX]<+\s*([^<>]*?)\s*>+", r"\1", text)
        yield from paragraphs(text)


def plain(folder, name):
    """Paragraphs of a manual in plain text; numbered headings and dotted tables of contents are no prose."""
    yield from (line for line in paragraphs(find(folder, name)) if not re.match(r"(\* )?[\d.]+ ", line) and ". . ." not in line)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        unpack(folder)
        texts = {
            "fortunes.txt": fortunes(folder, ["people", "science", "wisdom", "art", "work"]),
            "developers-reference.txt": plain(folder, "developers-reference.txt"),
            "perl-doc.txt": pod(folder, [f"perlfaq{i}.pod" for i in range(1, 10)] + ["perlglossary.pod", "perlintro.pod"]),
            "calibration.txt": [
                *plain(folder, "policy.txt"),
                *pod(folder, ["perlretut.pod", "perlootut.pod", "perlunitut.pod", "perlpacktut.pod", "perlport.pod", "perlguts.pod", "perlop.pod"]),
                *fortunes(folder, ["law", "education", "cookie", "definitions", "humorists", "sports", "pets", "medicine"]),
            ],
        }
        out.mkdir(parents=True, exist_ok=True)
        for name, lines in texts.items():
            text = "\n\n".join(lines) + "\n"
            (out / name).write_text(text, encoding="utf-8")
            print(f"{out / name}: {len(text):,} characters")


main()
