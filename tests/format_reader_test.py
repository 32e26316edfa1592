"""The document's reader (format_reader.py) and the program agree on packed checkpoints, weight by weight, bit by bit."""
import json
import re
import struct

import format_reader
from program import DEMO, SOURCE, ProgramTest, main, read_json

SMALL = ["--samples", 2, "--calib-seqlen", 64, "--fisher-windows", 1, "--statistics-windows", 1, "--drift-compensation", 0, "--threads", 1]
ENTROPY = ["--coding", "entropy", "--embedding-bits", 16]


class FormatTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", DEMO, "--layers", 1, "--hidden", 48, "--heads", 4, "--kv-heads", 2,
                     "--ffn", 72, "--vocab", 16000)
        self.calibration = self.folder / "text.txt"
        self.calibration.write_text((SOURCE / "LICENSE").read_text(encoding="utf-8")[:3000], encoding="utf-8")

    def agree(self, name, *arguments):
        """Compresses, and compares every matrix of the layers, and the plain tensors' names, with what mica export decodes."""
        packed, plain = self.folder / name, self.folder / f"{name}-plain"
        self.succeed("compress", self.model, packed, "--calib", f"text={self.calibration}", *SMALL, *arguments)
        self.succeed("export", packed, plain, "--dtype", "f32")
        config = read_json(packed / "config.json")["quantization_config"]
        self.assertEqual((config["quant_method"], config["version"]), ("mica", 3))
        raw = (plain / "model.safetensors").read_bytes()
        begin = 8 + struct.unpack("<Q", raw[:8])[0]
        exported = json.loads(raw[8:begin])
        index = read_json(packed / "model.safetensors.index.json")
        seen = set()
        for path in sorted(packed.glob("*.safetensors")):
            file = format_reader.File(path)
            for tensor in file.tensors:
                self.assertEqual(index["weight_map"][tensor], path.name)
            for matrix in file.matrices:
                facts = file.facts(matrix)
                seen.add(matrix)
                if facts["rows"] > 1000:  # embedding and head: a few seconds each in plain Python
                    continue
                first, last = exported[f"{matrix}.weight"]["data_offsets"]
                ours = b"".join(struct.pack(f"<{facts['cols']}f", *row) for row in file.decode(matrix))
                self.assertEqual(ours, raw[begin + first:begin + last], f"{name}: {matrix}")
        self.assertEqual(len(seen), 7 if "--embedding-bits" in arguments else 9)  # of the layer, and embedding and head
        return packed

    def test_entropy_at_every_rate(self):
        raw = 0
        for bpw, more in [(bpw, []) for bpw in (1.3, 2, 3.17, 4, 6, 8, 10)] + [(bpw, ["--sparsity", 0.5]) for bpw in (1.3, 2.4, 4)]:
            with self.subTest(bpw=bpw, more=more):
                out = self.agree(f"e{bpw}{len(more)}", *ENTROPY, "--bpw", bpw, *more)
                raw += any(self.uses_raw_bits(path) for path in out.glob("*.safetensors"))
        self.assertGreater(raw, 2, "knots beyond class 36 were met")

    def uses_raw_bits(self, path):
        file = format_reader.File(path)
        for matrix in file.matrices:
            facts = json.loads(file.matrices[matrix])
            if facts["coding"] == "entropy":
                knots = len(file.numbers(matrix, "tables", "U32")) // (1 if facts["states"] == 1 else 2)
                if facts["first_knot"] + knots - 1 > 9:
                    return True
        return False

    def test_entropy_without_trellis_and_rows(self):
        for bpw in (3.17, 7):
            self.agree(f"s{bpw}", *ENTROPY, "--bpw", bpw, "--trellis", "false", "--row-feedback", "false")

    def test_fixed_with_every_mask_and_width(self):
        for name, arguments in {"mixed": ["--bits", 3.5, "--bit-options", "0,2,3,4,6,8"], "half": ["--bits", 4, "--sparsity", 0.5, "--group-size", 20],
                                "two": ["--bits", 4, "--pattern", "2:4"], "four": ["--bits", 4, "--pattern", "4:8", "--groups", 3],
                                "sixteen": ["--bits", 16, "--sparsity", 0.3]}.items():
            with self.subTest(name):
                self.agree(name, *arguments)

    def test_the_reader_knows_what_the_document_says(self):
        """Numbers that stand in the document and in the reader."""
        document = (SOURCE / "docs" / "format.md").read_text(encoding="utf-8")
        for states in (4, 8):
            said = re.search(rf"{states} states: next ([{{}}0-9, ]+?) +quantiser ([01 ]+)", document)
            pairs = [tuple(map(int, pair)) for pair in re.findall(r"\{(\d),(\d)\}", said[1])]
            self.assertEqual((pairs, [int(q) for q in said[2].split()]), format_reader.MACHINES[states])
        self.assertIn(f"knot {format_reader.LAST_TAIL_KNOT}", document)


if __name__ == "__main__":
    main()
