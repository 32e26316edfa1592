"""What the whole-program tests share: running mica, a scratch directory, a text."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

MICA = os.environ.get("MICA", "build/release/bin/mica")
SOURCE = pathlib.Path(os.environ.get("MICA_SOURCE_DIR", pathlib.Path(__file__).parent.parent))
DEMO = SOURCE / "models" / "demo"
# AddressSanitizer reserves address space as it likes, so that programs with it know no limit of it.
SANITIZED = "libasan" in subprocess.run(["ldd", MICA], capture_output=True, text=True, check=False).stdout


def mica(*arguments, **options):
    """Runs mica to its end; the finished process with text output."""
    return subprocess.run([MICA, *map(str, arguments)], capture_output=True, text=True, timeout=3600 if SANITIZED else 600, **options)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mica_test_"))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def tokenizer(self):
        """A small tokenizer for models whose text does not matter."""
        folder = self.folder / "small-tokenizer"
        return folder if folder.exists() else small_tokenizer(folder)

    def succeed(self, *arguments, **options):
        """Runs mica, expects exit code 0, returns stdout."""
        done = mica(*arguments, **options)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr}")
        return done.stdout

    def fail_with(self, expected, *arguments, code=1, **options):
        """Runs mica, expects `code` and exactly one line on stderr that holds `expected`."""
        done = mica(*arguments, **options)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        lines = [line for line in done.stderr.splitlines() if line.startswith("mica: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn(expected, lines[0])

    def experiment(self, **changes):
        """An experiment file on eval.txt and calib.txt beside it; changes: its keys, or PART__KEY of a part."""
        content = {"name": "e", "model": "model", "directory": "out",
                   "evaluate": {"data": [{"kind": "text", "name": "docs", "path": "eval.txt"}], "seqlen": 64, "max_windows": 2},
                   "compress": {"budget": {"kind": "bits", "value": 4}, "samples": 4, "seqlen": 64,
                                "calib": [{"kind": "text", "path": "calib.txt"}]}}
        for key, value in changes.items():
            part, _, name = key.rpartition("__")
            (content[part] if part else content)[name] = value
        path = self.folder / "e.json"
        path.write_text(json.dumps(content))
        return path

    def text(self, name="text.txt", texts=("novels",)):
        """A text file of some ten thousand tokens, of those that stand in tests/texts: what a test finds does not change with any document."""
        path = self.folder / name
        path.write_text("\n\n".join((SOURCE / "tests" / "texts" / f"{text}.txt").read_text(encoding="utf-8") for text in texts), encoding="utf-8")
        return path


def fields(message):
    """Number, and place from its key to its end, of each length-delimited field of a protobuf message; stops at another kind."""
    at = 0

    def varint(place):
        value = shift = 0
        while True:
            value |= (message[place] & 127) << shift
            shift += 7
            place += 1
            if message[place - 1] < 128:
                return value, place

    while at < len(message):
        key, place = varint(at)
        if key & 7 != 2:
            return
        size, place = varint(place)
        yield key >> 3, at, place, place + size
        at = place + size


def small_tokenizer(folder, pieces=1000):
    """A directory with the demo checkpoint's tokenizer, of which only so many pieces are left: bytes, the first merges, and letters. A model with it has
    hardly any embedding, whose 16,000 rows take most of the time of what a test does with a small model otherwise."""
    whole = (DEMO / "tokenizer.model").read_bytes()
    kept, rest, count = b"", b"", 0
    for number, begin, content, end in fields(whole):
        if number != 1:  # settings of trainer and normaliser
            rest += whole[begin:end]
            continue
        text = next(whole[content:end][start:stop] for field, _, start, stop in fields(whole[content:end]) if field == 1)
        if count < pieces or len(text) == 1:
            kept += whole[begin:end]
        count += 1
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(kept + rest)
    return folder


def read_json(path):
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def same_bytes(one, other, skip=("compression.json",)):
    """Names of files that differ between two directories (times and memory stand in compression.json)."""
    names = {p.name for p in pathlib.Path(one).iterdir()} | {p.name for p in pathlib.Path(other).iterdir()}
    return [n for n in sorted(names - set(skip))
            if not ((one / n).exists() and (other / n).exists() and (one / n).read_bytes() == (other / n).read_bytes())]


def children(process):
    """Numbers of the processes that one has started and that still run."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == process:
            found.append(int(path.parent.name))
    return found


def main():
    unittest.main(argv=[sys.argv[0], "-v"])
