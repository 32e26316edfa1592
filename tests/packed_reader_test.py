"""The numpy reader of the packed format agrees with the C++ decoder, weight by weight, bit by bit."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    print("SKIP: numpy is not installed")
    sys.exit(77)
import read_packed

# The reader that the format document prints.
document = (pathlib.Path(os.environ["MICA_SOURCE_DIR"]) / "docs" / "format.md").read_text(encoding="utf-8")
printed = {"np": np, "json": json}
exec(document.split("```python\n")[1].split("```")[0], printed)
SHORT_READER_READS = ("one_width", "bitmap_widths_to_8")

writer = pathlib.Path(os.environ["MICA"]).parent / "mica_io_test"
if not writer.exists():
    print(f"SKIP: {writer} is not built")
    sys.exit(77)
with tempfile.TemporaryDirectory() as scratch:
    subprocess.run([writer, "--gtest_filter=PackedSamples.*"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "MICA_PACKED_SAMPLES": scratch})
    files = sorted(pathlib.Path(scratch).glob("*.safetensors"))
    assert files, "no samples were written"
    for file in files:
        tensors, facts = read_packed.load(file)
        assert facts.keys() >= set(SHORT_READER_READS), file
        for name, fact in facts.items():
            ours = read_packed.decode(tensors, name, fact)
            theirs = np.fromfile(f"{scratch}/{name}.f32", "<f4").reshape(fact["rows"], fact["cols"])
            assert ours.dtype == np.float32 and ours.tobytes() == theirs.tobytes(), f"{file.name}: {name} differs"
            if name in SHORT_READER_READS:
                short = printed["read_fixed"](file, name)
                assert short.dtype == np.float32 and short.tobytes() == theirs.tobytes(), f"{name}: the reader of docs/format.md differs"
            print(name, fact["coding"], theirs.shape, "agrees")
        # One flipped bit must not pass.
        damaged = bytearray(file.read_bytes())
        damaged[-5] ^= 1
        file.write_bytes(damaged)
        try:
            read_packed.load(file)
        except AssertionError:
            continue
        raise SystemExit(f"{file.name}: a flipped bit was not noticed")
