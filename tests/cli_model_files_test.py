"""Directories as people have them: a clone without Git LFS, two layouts in one place, files that others wrote or that
change while they are read. Each is read as it should be, or named for what it is before anything is written."""
import json
import os
import shutil
import struct
import subprocess
import time

from program import DEMO, MICA, ProgramTest, main, mica, read_json

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13476925163\n"
SMALL = ["--samples", "2", "--calib-seqlen", "64", "--fisher-windows", "1"]


class ModelFilesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeed("synthesize", self.model, "--tokenizer", DEMO, "--layers", 2, "--hidden", 32, "--ffn", 48, "--heads", 2, "--kv-heads", 2)
        self.words = self.text()
        self.short = ["--data", f"text={self.words}", "--seqlen", "64", "--max-windows", "1"]

    def compress(self, out="packed", bits=4, *more):
        self.succeed("compress", self.model, self.folder / out, "--calib", f"text={self.words}", *SMALL, "--bits", bits, *more)
        return self.folder / out

    def evaluate(self, model, *more):
        return json.loads(self.succeed("eval", model, *self.short, *more, "--force", "--json"))

    def refuse(self, expected, model):
        """Evaluating, exporting and inspecting all refuse it in these words."""
        self.fail_with(expected, "eval", model, *self.short, "--force")
        self.fail_with(expected, "export", model, self.folder / "exported")
        self.fail_with(expected, "inspect", model)
        self.assertFalse((self.folder / "exported").exists())

    def copy(self, packed):
        other = self.folder / "other"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(packed, other)
        return other

    def test_a_packed_checkpoint_is_what_was_written(self):
        packed = self.compress()
        self.evaluate(packed)
        shards = sorted(p.name for p in packed.glob("*.safetensors"))
        self.assertEqual(list(read_json(packed / "compression.json")["file"]["shards"]), shards)

        other = self.copy(packed)
        for beside in ("model.safetensors", "weights.safetensors", "pytorch_model.bin"):
            shutil.copy(self.model / "model.safetensors", other / beside)
            self.refuse(f"{beside} lies beside", other)
            (other / beside).unlink()
        self.evaluate(other)

        # The shard of another compression; another one of the same length.
        stranger = self.compress("stranger", 2)
        shutil.copy(stranger / shards[2], other / shards[2])
        self.refuse(f"{shards[2]} is ", other)
        twin = self.compress("twin", 4, "--seed", 5)
        other = self.copy(packed)
        for shard in shards:
            shutil.copy(twin / shard, other / shard)
        if any((twin / s).read_bytes() != (packed / s).read_bytes() for s in shards):
            self.refuse("compression.json", other)

        # All of the original over the packed one, or its config.json alone.
        other = self.copy(packed)
        shutil.copy(self.model / "config.json", other / "config.json")
        self.fail_with("its config.json is not that of a packed checkpoint", "eval", other, *self.short)
        other = self.copy(packed)
        for name in shards:
            (other / name).unlink()
        (other / "model.safetensors.index.json").unlink()
        shutil.copy(self.model / "model.safetensors", other / "model.safetensors")
        self.refuse("model.safetensors holds no packed matrix", other)

    def test_two_layouts_of_an_original(self):
        alone = self.evaluate(self.model)
        (self.model / "pytorch_model.bin").write_bytes(b"not read")
        (self.model / "consolidated.safetensors").write_bytes(b"not read")
        done = mica("eval", self.model, *self.short, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["datasets"]["text"]["ppl"], alone["datasets"]["text"]["ppl"])
        self.assertEqual(done.stderr.count("not read: consolidated.safetensors, pytorch_model.bin"), 1, done.stderr)

    def test_a_clone_without_git_lfs(self):
        packed = self.compress()
        for model in (self.model, packed):
            for name in sorted(p.name for p in model.iterdir() if p.name != "generation_config.json"):
                with self.subTest(model=model.name, file=name):
                    whole = (model / name).read_bytes()
                    (model / name).write_bytes(POINTER)
                    self.fail_with(f"{name}: is a Git LFS pointer", "eval", model, *self.short, "--force")
                    (model / name).write_bytes(whole)
        self.words.write_bytes(POINTER)
        self.fail_with("is a Git LFS pointer", "eval", self.model, *self.short)
        self.fail_with("run 'git lfs pull'", "compress", self.model, self.folder / "out", "--calib", f"text={self.words}", "--bits", 4)
        self.assertFalse((self.folder / "out").exists())

    def test_a_stopped_compression_is_no_model(self):
        out = self.folder / "stopped"
        (out / ".work").mkdir(parents=True)
        self.fail_with("a compression that was not finished", "eval", out, *self.short)
        os.symlink("../blobs/none", self.folder / "link")
        self.fail_with("is a link to ../blobs/none", "eval", self.folder / "link", *self.short)
        self.fail_with("is a link to ../blobs/none", "eval", self.model, "--data", f"text={self.folder / 'link'}")

    def test_the_cache_of_a_hub(self):
        alone = self.evaluate(self.model)
        cache = self.folder / "models--someone--Small-1B"
        snapshot = cache / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        (cache / "blobs").mkdir()
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("0123abcd")
        for number, file in enumerate(sorted(self.model.iterdir())):
            shutil.copy(file, cache / "blobs" / f"{number}")
            os.symlink(f"../../blobs/{number}", snapshot / file.name)
        for model in (cache, f"{cache}/", snapshot):
            found = self.evaluate(model)
            self.assertEqual(found["datasets"]["text"]["nll"], alone["datasets"]["text"]["nll"])
            self.assertEqual(found["model"]["tokenizer"], alone["model"]["tokenizer"])
        self.assertEqual(self.succeed("tokenize", cache, self.words), self.succeed("tokenize", self.model, self.words))
        self.succeed("compress", cache, self.folder / "packed_cache", "--calib", f"text={self.words}", *SMALL, "--bits", 4)
        self.assertIn("tokenizer.model", {p.name for p in (self.folder / "packed_cache").iterdir()})
        self.succeed("export", cache, "--to", "gguf", "-o", self.folder / "m.gguf")
        self.assertIn(b"Small-1B", (self.folder / "m.gguf").read_bytes())
        shutil.rmtree(snapshot)
        self.fail_with("refs/main names it; complete the download", "eval", cache, *self.short)

    def add_tensors(self, *names):
        """Small tensors of these names into the model."""
        weights = self.model / "model.safetensors"
        data = weights.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header, values = json.loads(data[8:8 + size]), data[8 + size:]
        for name in names:
            header[name] = {"dtype": "F32", "shape": [2], "data_offsets": [len(values), len(values) + 8]}
            values += struct.pack("<2f", 1, 2)
        text = json.dumps(header).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + values)

    def test_tensors_that_are_computed_anew_are_passed_over_and_shown(self):
        alone = self.evaluate(self.model)
        names = ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.1.attn.masked_bias", "model.layers.1.attention.bias"]
        self.add_tensors(*names)
        done = mica("eval", self.model, *self.short, "--json")
        self.assertEqual(json.loads(done.stdout)["datasets"]["text"]["nll"], alone["datasets"]["text"]["nll"])
        self.assertNotIn("does not read", done.stderr)
        self.assertEqual(sorted(json.loads(self.succeed("inspect", self.model, "--json"))["not_read"]), sorted(names))
        self.assertIn("not read        3 tensors: ", self.succeed("inspect", self.model))

    def test_towers_are_refused_by_name(self):
        self.add_tensors("vision_tower.encoder.layers.0.mlp.fc1.weight")
        expected = "vision_tower.encoder.layers.0.mlp.fc1.weight is of a vision or audio tower"
        self.fail_with(expected, "eval", self.model, *self.short)
        self.fail_with(expected, "inspect", self.model)
        config = read_json(self.model / "config.json")
        config["vision_config"] = {"hidden_size": 8}
        (self.model / "config.json").write_text(json.dumps(config))
        self.fail_with('config.json: has a vision tower ("vision_config")', "inspect", self.model)

    def test_a_pickle_of_an_early_pytorch(self):
        (self.model / "model.safetensors").unlink()
        (self.model / "pytorch_model.bin").write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
        for command in (["eval", self.model, *self.short], ["inspect", self.model]):
            self.fail_with("a bare pickle, as PyTorch before 1.6 wrote, expected a PyTorch checkpoint; load it once with a later PyTorch", *command)

    def test_chat_templates_go_along(self):
        config = read_json(self.model / "tokenizer_config.json") if (self.model / "tokenizer_config.json").exists() else {}
        config["chat_template"] = "{{ messages }}"
        (self.model / "tokenizer_config.json").write_text(json.dumps(config))
        (self.model / "chat_template.jinja").write_text("{{ turns }}")
        packed = self.compress()
        self.succeed("export", packed, self.folder / "plain")
        for out in (packed, self.folder / "plain"):
            self.assertEqual((out / "chat_template.jinja").read_text(), "{{ turns }}")
            self.assertEqual(read_json(out / "tokenizer_config.json")["chat_template"], "{{ messages }}")
        for model in (self.model, packed):
            self.succeed("export", model, "--to", "gguf", "-o", self.folder / "m.gguf")
            self.assertIn(b"tokenizer.chat_template", (self.folder / "m.gguf").read_bytes())
            self.assertIn(b"{{ turns }}", (self.folder / "m.gguf").read_bytes())

    def test_values_are_checked_before_anything_is_written(self):
        weights = self.model / "model.safetensors"
        data = bytearray(weights.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        embedding = header["model.embed_tokens.weight"]
        row = embedding["shape"][0] - 1  # padding, which no text uses
        at = 8 + size + embedding["data_offsets"][0] + 2 * (32 * row + 5)
        data[at:at + 2] = b"\xff\x7f"
        weights.write_bytes(data)
        expected = f"model.embed_tokens.weight holds NaN at [{row}, 5]"
        self.fail_with(expected, "compress", self.model, self.folder / "out", "--calib", f"text={self.words}", *SMALL, "--bits", 4)
        self.assertFalse((self.folder / "out").exists())
        self.fail_with(expected, "eval", self.model, *self.short, "-o", self.folder / "result.json")
        self.assertFalse((self.folder / "result.json").exists())

    def test_a_bit_flipped_in_a_bin_file(self):
        self.succeed("synthesize", self.folder / "torch", "--tokenizer", DEMO, "--layers", 1, "--hidden", 32, "--ffn", 48, "--heads", 2, "--format", "bin")
        weights = self.folder / "torch" / "pytorch_model.bin"
        self.evaluate(self.folder / "torch")
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
        self.fail_with("CRC-32", "eval", self.folder / "torch", *self.short)

    def test_a_file_that_changes_while_it_is_read(self):
        long = self.folder / "long.txt"
        long.write_text(self.words.read_text(encoding="utf-8") * 40, encoding="utf-8")
        weights = (DEMO / "model.safetensors").read_bytes()

        def truncate(path):
            os.truncate(path, 1 << 16)

        def rewrite(path):
            with open(path, "r+b") as file:
                file.seek(len(weights) // 2)
                file.write(bytes(1 << 20))

        for change in (truncate, rewrite):
            with self.subTest(change.__name__):
                model = self.folder / change.__name__
                shutil.copytree(DEMO, model)
                process = subprocess.Popen([MICA, "eval", str(model), "--data", f"text={long}", "--seqlen", "512"],
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                time.sleep(1.0)
                change(model / "model.safetensors")
                out, err = process.communicate(timeout=300)
                if process.returncode == 0:
                    self.skipTest("it was done before the file changed")
                self.assertEqual(process.returncode, 1, err)
                lines = [line for line in err.splitlines() if line.startswith("mica: ")]
                self.assertEqual(len(lines), 1, err)
                self.assertRegex(lines[0], r"model\.safetensors: (changed|became shorter) while it was read")
                self.assertEqual(out, "")

    def test_tokenizer_and_vocabulary_belong_together(self):
        self.succeed("synthesize", self.folder / "large", "--tokenizer", DEMO, "--vocab", 32000, "--layers", 1, "--hidden", 32, "--ffn", 48, "--heads", 2)
        done = mica("eval", self.folder / "large", *self.short)
        self.assertIn("the tokenizer has 16000 pieces, the model a vocabulary of 32000", done.stderr)
        self.succeed("synthesize", self.folder / "small", "--vocab", 512, "--layers", 1, "--hidden", 32, "--ffn", 48, "--heads", 2)
        shutil.copy(DEMO / "tokenizer.model", self.folder / "small" / "tokenizer.model")
        expected = "the tokenizer has 16000 pieces, the model a vocabulary of 512; they do not belong together"
        self.fail_with(expected, "eval", self.folder / "small", *self.short)
        self.fail_with(expected, "compress", self.folder / "small", self.folder / "out", "--calib", f"text={self.words}", *SMALL, "--bits", 4)
        self.assertFalse((self.folder / "out").exists())

    def test_add_bos_token_false_is_respected(self):
        config = self.model / "tokenizer_config.json"
        with_bos = json.loads(self.succeed("tokenize", self.model, self.words))
        config.write_text('{"add_bos_token": false}')
        self.assertEqual(json.loads(self.succeed("tokenize", self.model, self.words)), with_bos[1:])
        self.assertEqual(json.loads(self.succeed("tokenize", self.model, self.words, "--bos")), with_bos)
        self.assertEqual(self.evaluate(self.model)["datasets"]["text"]["text_tokens"], len(with_bos) - 1)


if __name__ == "__main__":
    main()
