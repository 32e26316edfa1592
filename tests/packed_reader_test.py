"""The numpy reader of the packed format agrees with the C++ decoder, weight by weight, bit by bit."""
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
        assert facts, file
        for name, fact in facts.items():
            ours = read_packed.decode(tensors, name, fact)
            theirs = np.fromfile(f"{scratch}/{name}.f32", "<f4").reshape(fact["rows"], fact["cols"])
            assert ours.dtype == np.float32 and ours.tobytes() == theirs.tobytes(), f"{file.name}: {name} differs"
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
