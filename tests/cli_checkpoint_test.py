"""inspect, tokenize and synthesize from the outside; one checkpoint in four layouts; hostile weight files."""
import collections
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import types
import zipfile

from program import DEMO, MICA, ProgramTest, main, mica, read_json


def read_safetensors(path):
    """{name: (dtype, shape, bytes)} and nothing else."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {n: (e["dtype"], e["shape"], data[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]]) for n, e in header.items()}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


class Storage:
    def __init__(self, key, elements):
        self.key, self.elements = key, elements


class Tensor:
    def __init__(self, storage, shape):
        strides = [1] * len(shape)
        for i in range(len(shape) - 2, -1, -1):
            strides[i] = strides[i + 1] * shape[i + 1]
        self.arguments = (storage, 0, tuple(shape), tuple(strides), False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class TorchPickler(pickle.Pickler):
    """Python's own pickler makes the stream that PyTorch makes, given modules of those names."""

    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", sys.modules["torch"].HalfStorage, thing.key, "cpu", thing.elements)
        return None


def fake_torch():
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.HalfStorage = type("HalfStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2(*arguments):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    return {"torch": torch, "torch._utils": utils}


def write_torch(path, tensors, protocol=2, root=None):
    saved = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update(fake_torch())
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            entries = collections.OrderedDict(
                (name, Tensor(Storage(str(i), len(data) // 2), shape)) for i, (name, (_, shape, data)) in enumerate(tensors.items()))
            with archive.open("archive/data.pkl", "w") as file:
                TorchPickler(file, protocol).dump(entries if root is None else root)
            for i, (_, _, data) in enumerate(tensors.values()):
                archive.writestr(f"archive/data/{i}", data)
            archive.writestr("archive/version", "3\n")
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class CheckpointTest(ProgramTest):
    def companion(self, name):
        """A directory with everything of the demo but its weights."""
        folder = self.folder / name
        folder.mkdir()
        for file in ("config.json", "tokenizer.model", "tokenizer_config.json"):
            shutil.copy(DEMO / file, folder)
        return folder

    def layouts(self):
        tensors = read_safetensors(DEMO / "model.safetensors")
        half = len(tensors) // 2
        parts = [dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])]
        sharded, torch, torch_sharded = (self.companion(n) for n in ("sharded", "torch", "torch_sharded"))
        write_torch(torch / "pytorch_model.bin", tensors)
        for folder, stem, extension, write in ((sharded, "model", "safetensors", write_safetensors),
                                               (torch_sharded, "pytorch_model", "bin", write_torch)):
            index = {}
            for i, part in enumerate(parts):
                name = f"{stem}-{i + 1:05}-of-00002.{extension}"
                write(folder / name, part)
                index.update({tensor: name for tensor in part})
            (folder / f"{stem}.{extension}.index.json").write_text(json.dumps({"weight_map": index}))
        return [DEMO, sharded, torch, torch_sharded]

    def test_four_layouts_give_the_same_figures(self):
        text = self.text()
        results, layouts = [], []
        for model in self.layouts():
            layouts.append(json.loads(self.succeed("inspect", model, "--json"))["layout"])
            results.append(json.loads(self.succeed("eval", model, "--data", f"text={text}", "--seqlen", 64, "--max-windows", 2, "--json")))
        self.assertEqual(layouts, ["safetensors", "safetensors, 2 shards", "PyTorch .bin", "PyTorch .bin, 2 shards"])
        self.assertEqual(len({r["datasets"]["text"]["ppl"] for r in results}), 1)
        self.assertEqual(len({r["model"]["fingerprint"] for r in results}), 1, [r["model"] for r in results])

    def test_inspect_agrees_with_the_file(self):
        tensors = read_safetensors(DEMO / "model.safetensors")
        shown = json.loads(self.succeed("inspect", DEMO, "--json"))
        self.assertEqual({t["name"]: (t["dtype"], t["shape"], t["bytes"]) for t in shown["tensors"]},
                         {n: (d, s, len(b)) for n, (d, s, b) in tensors.items()})
        self.assertEqual(shown["parameters"], read_json(DEMO / "training.json")["params"])
        self.assertEqual(shown["file_bytes"], (DEMO / "model.safetensors").stat().st_size)
        self.assertEqual(shown["bits_per_weight"], 16)
        text = self.succeed("inspect", DEMO)
        for part in ("LlamaForCausalLM", "8 layers", "(GQA)", "18733440", "model.layers.7.mlp.up_proj.weight"):
            self.assertIn(part, text)

    def test_tokenize_prints_the_reference(self):
        reference = read_json(DEMO / "reference.json")
        file = self.folder / "t.txt"
        file.write_text(reference["text"], encoding="utf-8")
        self.assertEqual(json.loads(self.succeed("tokenize", DEMO, file)), reference["ids"])
        self.assertEqual(json.loads(self.succeed("tokenize", DEMO, file, "--no-bos")), reference["ids"][1:])
        self.assertEqual(json.loads(self.succeed("tokenize", DEMO / "tokenizer.model", "-", input=reference["text"])), reference["ids"])
        file.write_text("<s>a</s>")
        self.assertEqual(json.loads(self.succeed("tokenize", DEMO, file, "--special"))[:2], [1, 1])
        file.write_text("")
        self.assertEqual(json.loads(self.succeed("tokenize", DEMO, file)), [1])
        file.write_bytes(b"caf\xe9")
        self.fail_with("not UTF-8 at byte 3", "tokenize", DEMO, file)
        self.fail_with("absent", "tokenize", DEMO, self.folder / "absent")

    def test_a_random_checkpoint_of_every_kind_is_evaluated(self):
        text = self.text()
        shapes = {
            "mqa": ["--hidden", 72, "--heads", 4, "--kv-heads", 1, "--head-dim", 18, "--ffn", 100, "--rope-theta", 500000],
            "gqa": ["--heads", 4, "--kv-heads", 2, "--tied", "--dtype", "bf16"],
            "mha": ["--heads", 4, "--format", "bin", "--shard-bytes", "1MB", "--dtype", "f32"],
            "qwen2": ["--architecture", "qwen2", "--format", "bin", "--shard-bytes", 0],
            "mistral": ["--architecture", "mistral", "--layers", 1],
            "biases": ["--attention-bias"],
        }
        for name, flags in shapes.items():
            with self.subTest(name):
                out = self.folder / name
                made = json.loads(self.succeed("synthesize", out, *flags, "--tokenizer", DEMO, "--json"))
                shown = json.loads(self.succeed("inspect", out, "--json"))
                self.assertEqual(made["parameters"], shown["parameters"])
                self.assertEqual(made["file_bytes"], shown["file_bytes"])
                result = json.loads(self.succeed("eval", out, "--data", f"text={text}", "--seqlen", 64, "--max-windows", 1, "--json"))
                # Random weights know nothing: about as bad as a guess among all pieces, and finite.
                self.assertTrue(1000 < result["datasets"]["text"]["ppl"] < 1e6, result["datasets"])

    def test_synthesize_refuses_what_cannot_be(self):
        self.succeed("synthesize", self.folder / "m")
        self.fail_with("not an empty directory", "synthesize", self.folder / "m")
        self.fail_with("--kv-heads is 3", "synthesize", self.folder / "n", "--heads", 4, "--kv-heads", 3)
        self.fail_with("of disk space", "synthesize", self.folder / "n", "--layers", 4096, "--hidden", 65536, "--heads", 64)
        self.fail_with("cannot be created", "synthesize", self.folder / "m" / "config.json" / "n")
        self.assertEqual(mica("synthesize", self.folder / "n", "--preset", "gpt").returncode, 1)
        self.assertFalse((self.folder / "n").exists())

    def test_an_interrupted_or_full_disk_leaves_nothing(self):
        disk = tempfile.mkdtemp(prefix="mica_disk_")
        try:
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True).returncode != 0:
                self.skipTest("a tmpfs cannot be mounted here")
            try:
                self.fail_with("of disk space", "synthesize", os.path.join(disk, "m"), "--hidden", 1024, "--ffn", 4096, "--heads", 16)
                self.assertEqual(os.listdir(disk), [])
            finally:
                subprocess.run(["umount", disk], check=True)
        finally:
            os.rmdir(disk)
        # A limit that only shows while writing.
        limited = subprocess.run(["sh", "-c", f"ulimit -f 1000; trap '' XFSZ; exec '{MICA}' synthesize '{self.folder / 'limited'}' --hidden 512 --heads 8"],
                                 capture_output=True, text=True)
        self.assertEqual(limited.returncode, 1, limited.stderr)
        self.assertRegex(limited.stderr.splitlines()[-1], r"^mica: .*model.safetensors: writing failed after \d+ bytes \(File too large\)")
        self.assertFalse((self.folder / "limited").exists())

    def hostile(self, name, content):
        folder = self.companion(f"hostile{len(list(self.folder.iterdir()))}")
        (folder / name).write_bytes(content)
        return folder

    def test_hostile_safetensors(self):
        good = (DEMO / "model.safetensors").read_bytes()
        size = struct.unpack("<Q", good[:8])[0]
        header = json.loads(good[8:8 + size])
        first = next(n for n in header if n != "__metadata__")

        def changed(change):
            copy = json.loads(json.dumps(header))
            change(copy)
            text = json.dumps(copy).encode()
            return struct.pack("<Q", len(text)) + text + good[8 + size:]

        twice = json.dumps({first: header[first]}).encode()[:-1] + b", " + good[8:8 + size].lstrip(b"{ ").split(b"}" + b" " * 8)[0]
        cases = {
            "truncated": (good[:-1000], "truncated"),
            "overlong": (good + b"x" * 10, "10 bytes after the last tensor"),
            "empty": (b"", "is empty"),
            "huge header": (struct.pack("<Q", 1 << 60) + good[8:], "1152921504606846976"),
            "outside": (changed(lambda h: h[first].update(data_offsets=[1 << 50, (1 << 50) + 2])), first),
            "dtype": (changed(lambda h: h[first].update(dtype="F4")), "dtype F4"),
            "shape": (changed(lambda h: h[first].update(shape=[1 << 40, 1 << 40])), "more than a file can hold"),
            "duplicate": (struct.pack("<Q", len(twice)) + twice + good[8 + size:], f"names {first} twice"),
        }
        for name, (content, expected) in cases.items():
            with self.subTest(name):
                folder = self.hostile("model.safetensors", content)
                self.fail_with(expected, "inspect", folder)
                self.fail_with(expected, "eval", folder, "--data", f"text={self.text()}")
                shutil.rmtree(folder)

    def test_hostile_pickles(self):
        class Evil:
            def __reduce__(self):
                return os.system, ("touch " + str(marker),)

        marker = self.folder / "marker"
        folder = self.companion("evil")
        write_torch(folder / "pytorch_model.bin", {}, root={"w": Evil()})
        self.fail_with("posix.system is not allowed", "eval", folder, "--data", f"text={self.text()}")
        self.assertFalse(marker.exists())
        for protocol in (2, 3, 4, 5):
            write_torch(folder / "pytorch_model.bin", {"w": ("F16", [2], b"1234")}, protocol)
            self.fail_with("model.embed_tokens.weight is missing", "inspect", folder)
        write_torch(folder / "pytorch_model.bin", {}, root={"w": slice(1)})
        self.fail_with("slice is not allowed", "inspect", folder)
        with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("archive/data.pkl", b"\x80\x02}.")
            bomb.writestr("archive/data/0", bytes(50 << 20))
        self.fail_with("compressed", "inspect", folder)
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"w": 1}, 2))
        self.fail_with("PyTorch before 1.6", "inspect", folder)

    def test_index_pointing_nowhere(self):
        folder = self.companion("index")
        for shard, expected in (("absent.safetensors", "absent.safetensors, which is missing"), ("../../etc/passwd", "plain name")):
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
            self.fail_with(expected, "inspect", folder)


if __name__ == "__main__":
    main()
