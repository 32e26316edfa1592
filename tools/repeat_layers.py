#!/usr/bin/env python3
"""Makes a deep packed checkpoint of a shallow one: layer i of OUT is layer i mod (layers of PACKED).

usage: repeat_layers.py PACKED LAYERS OUT

For measurements of speed and memory, where compressing every layer of a large shape would take hours: what a layer's integers are does not matter to them, how
many bits it has does. Each layer is a file of its own, so nothing is shared in the page cache. Format: docs/format.md; names of tensors are no part of the
checksums, so these are copied. No compression.json: nothing was compressed as this is.
"""
import argparse
import json
import pathlib
import re
import shutil
import struct

LAYER = re.compile(r"\bmodel\.layers\.(\d+)\.")


def layer_of(name):
    """The layer that a tensor, or a key of the metadata, belongs to; none: it stands outside of them."""
    found = LAYER.search(name)
    return int(found[1]) if found else None


class Shard:
    """A safetensors file: its header taken apart, and where its tensors' bytes begin."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            self.tensors = json.loads(file.read(length))
        self.begin = 8 + length
        self.texts = self.tensors.pop("__metadata__", {})

    def write(self, path, layer, renamed):
        """Its tensors of a layer (none: those outside) as a file, with their metadata, under the names that `renamed` gives; their names and bytes."""
        wanted = sorted((name for name in self.tensors if layer_of(name) == layer), key=lambda name: self.tensors[name]["data_offsets"])
        header, at = {"__metadata__": {renamed(key): text for key, text in self.texts.items() if layer_of(key) == layer}}, 0
        for name in wanted:
            begin, end = self.tensors[name]["data_offsets"]
            header[renamed(name)] = {**self.tensors[name], "data_offsets": [at, at + end - begin]}
            at += end - begin
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(self.path, "rb") as source, open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in wanted:
                begin, end = self.tensors[name]["data_offsets"]
                source.seek(self.begin + begin)
                file.write(source.read(end - begin))
        return [renamed(name) for name in wanted], at


def repeat(packed, layers, out):
    config = json.loads((packed / "config.json").read_text(encoding="utf-8"))
    have = config["num_hidden_layers"]
    shards = [Shard(path) for path in sorted(packed.glob("*.safetensors"))]
    pieces = [(shard, layer) for shard in shards for layer in dict.fromkeys(map(layer_of, shard.tensors))]
    files = [(shard, None, None) for shard, layer in pieces if layer is None]  # of OUT: where its tensors are, their layer there and here
    files += [(shard, layer, target) for target in range(layers) for shard, layer in pieces if layer == target % have]
    out.mkdir(parents=True)
    own = ("config.json", "compression.json", "model.safetensors.index.json")
    for path in packed.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in own:
            shutil.copyfile(path, out / path.name)
    places, total = {}, 0
    for number, (shard, layer, target) in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        names, size = shard.write(out / name, layer, lambda text, target=target: LAYER.sub(f"model.layers.{target}.", text))
        places |= dict.fromkeys(names, name)
        total += size
    (out / own[2]).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1), encoding="utf-8")
    (out / own[0]).write_text(json.dumps({**config, "num_hidden_layers": layers}, indent=2), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=pathlib.Path)
    parser.add_argument("layers", type=int)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    repeat(options.packed, options.layers, options.out)


if __name__ == "__main__":
    main()
