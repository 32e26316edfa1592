"""Coding compressed-tensors: directories that vLLM loads, written under a budget; theirs and llm-compressor's read, measured, refused. Where the packages
transformers and compressed_tensors are, they load what was written."""
import json
import shutil
import signal
import subprocess
import time
import unittest

from program import DEMO, MICA, ProgramTest, main, mica, read_json, same_bytes

try:
    import numpy as np

    from read_compressed_tensors import Tensor, bf16, decode_directory, f16, header, load, load_directory, pack, save
except ImportError:
    print("SKIP: numpy is not installed")
    raise SystemExit(77)

try:
    import compressed_tensors  # noqa: F401 (transformers loads it)
    import torch
    import transformers
except ImportError:
    transformers = None

FUSED = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj"))
BYTES = {"I64": 8, "I32": 4, "F32": 4, "F16": 2, "BF16": 2}


def copy_of(model, path, tensors, **changes):
    """A checkpoint with other tensors and keys of config.json."""
    shutil.copytree(model, path, ignore=shutil.ignore_patterns("model.safetensors", "*.json"))
    save(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps(read_json(model / "config.json") | changes))
    return path


class CompressedTensorsFolder(ProgramTest):
    QUICK = ("--coding", "compressed-tensors", "--samples", 4, "--seqlen", 64, "--fisher-windows", 2, "--statistics-windows", 2, "--preset", "fast")

    def compress(self, *more, model=DEMO, out="out"):
        path = self.folder / out
        self.succeed("compress", model, path, "--calib", f"text={self.text()}", *self.QUICK, *more)
        return path

    def untied(self):
        """The demo checkpoint in BF16 with a head of its own."""
        tensors = {name: bf16(tensor.floats()) for name, tensor in load_directory(DEMO).items()}
        head = tensors["model.embed_tokens.weight"].floats()
        tensors["lm_head.weight"] = bf16(head * np.float32(0.5))
        return copy_of(DEMO, self.folder / "untied", tensors, tie_word_embeddings=False, torch_dtype="bfloat16")


class CompressedTensorsTest(CompressedTensorsFolder):
    kept = {}  # tensors as another program writes them, made once

    def check_export(self, path):
        """What `mica export` writes is what numpy decodes, to the last bit."""
        exported = self.folder / "exported"
        self.succeed("export", path, exported, "--to", "hf", "--dtype", "fp32")
        written, expected = load_directory(exported), decode_directory(path)
        self.assertEqual(set(written), set(expected))
        for name, values in expected.items():
            self.assertTrue(np.array_equal(written[name].values, values), name)
        self.assertNotIn("quantization_config", read_json(exported / "config.json"))
        shutil.rmtree(exported)
        return expected

    def test_a_budget_is_met_and_the_directory_is_what_readers_expect(self):
        out = self.compress("--bpw", 5.2)
        record, config = read_json(out / "compression.json"), read_json(out / "config.json")
        self.assertLessEqual(record["bits"]["bits_per_weight"], 5.2)
        self.assertGreater(record["bits"]["bits_per_weight"], 5.0)
        self.assertFalse((out / ".work").exists())
        for name in ("tokenizer.model", "tokenizer_config.json"):
            self.assertEqual((out / name).read_bytes(), (DEMO / name).read_bytes())
        quantization = config.pop("quantization_config")
        self.assertEqual(config, read_json(DEMO / "config.json"))
        self.assertEqual({key: quantization[key] for key in ("quant_method", "format", "quantization_status", "ignore")},
                         {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"]})
        self.assertEqual(len(quantization), 5)
        bits = {}
        for group in quantization["config_groups"].values():
            self.assertEqual(set(group), {"targets", "weights", "input_activations", "output_activations"})
            weights = group["weights"]
            self.assertEqual(weights, {"num_bits": weights["num_bits"], "type": "int", "symmetric": True, "strategy": "group", "group_size": 128,
                                       "actorder": None, "dynamic": False})
            bits |= {target: weights["num_bits"] for target in group["targets"]}
        self.assertEqual(set(bits.values()), {4, 8})
        self.assertEqual(len(bits), 7 * 8, "modules by their names where there are several widths")
        for layer in record["layers"]:
            prefix = f"model.layers.{layer['layer']}."
            for name, matrix in layer["linears"].items():
                self.assertEqual(matrix["type"], f"int{bits[prefix + name]} g128")
            for parts in FUSED:
                self.assertEqual(len({bits[prefix + part] for part in parts}), 1, parts)

        entries, _, raw = header(out / "model.safetensors")
        metadata = entries.pop("__metadata__")
        self.assertEqual(metadata["format"], "pt")
        self.assertEqual(json.loads(metadata["mica.settings"])["coding"], "compressed-tensors")
        self.assertEqual(metadata["mica.original.fingerprint"], record["model"]["fingerprint"])
        self.assertEqual(len(raw), record["file"]["bytes_after"])
        for name, entry in entries.items():
            self.assertEqual(entry["data_offsets"][0] % BYTES[entry["dtype"]], 0, name)
        self.assertNotIn("lm_head.weight", entries)
        original = load_directory(DEMO)
        for name, tensor in load_directory(out).items():
            if name in original:
                self.assertTrue(np.array_equal(tensor.values, original[name].values), name)
        stored = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in entries.items() if "proj" in name)
        weights = sum(tensor.values.size for name, tensor in original.items() if "proj" in name)
        self.assertAlmostEqual(8 * stored / weights, record["bits"]["bits_per_weight"], places=9)
        inspected = json.loads(self.succeed("inspect", out, "--json"))
        self.assertAlmostEqual(inspected["decoder_matrices"]["bits_per_weight"], record["bits"]["bits_per_weight"], places=9)
        self.check_export(out)

        results = []
        for model, name in ((DEMO, "before"), (out, "after")):
            results.append(self.folder / f"{name}.json")
            self.succeed("eval", model, "--data", f"text={self.text()}", "--seqlen", 64, "--max-windows", 8, "-o", results[-1],
                         *(() if model == DEMO else ("--reference", DEMO, "--force")))
        before, after = (read_json(path)["datasets"]["text"] for path in results)
        self.assertLess(abs(after["nll"] - before["nll"]), 0.2)
        self.assertLess(after["divergence"]["kl"], 0.1)
        self.assertIn("compressed-tensors", self.succeed("compare", *results))

    def test_a_head_of_its_own_is_kept_and_ignored(self):
        model = self.untied()
        out = self.compress("--group-size", 64, model=model)
        quantization = read_json(out / "config.json")["quantization_config"]
        self.assertEqual(quantization["ignore"], ["lm_head"])
        (group,) = quantization["config_groups"].values()
        self.assertEqual((group["targets"], group["weights"]["num_bits"], group["weights"]["group_size"]), (["Linear"], 4, 64))
        written, original = load_directory(out), load_directory(model)
        for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
            self.assertEqual(written[name].dtype, "BF16")
            self.assertTrue(np.array_equal(written[name].values, original[name].values))
        scales = written["model.layers.0.mlp.down_proj.weight_scale"]
        self.assertEqual((scales.dtype, scales.values.shape), ("BF16", (384, 16)))
        self.assertEqual(written["model.layers.0.mlp.down_proj.weight_packed"].values.shape, (384, 128))
        self.check_export(out)

    def phi(self):
        """A checkpoint whose q, k, v and gate, up are one matrix each."""
        model = self.folder / "phi"
        self.succeed("synthesize", model, "--architecture", "phi3", "--preset", "tiny", "--hidden", 128, "--heads", 4, "--kv-heads", 2, "--layers", 3,
                     "--ffn", 192, "--tokenizer", DEMO)
        return model

    def test_matrices_that_are_one_stay_one(self):
        model = self.phi()
        sizes = {}
        for budget in (("--bpw", 6.5), ("--size", 8_500_000)):
            out = self.compress(*budget, "--group-size", 64, model=model, out=budget[0])
            record, quantization = read_json(out / "compression.json"), read_json(out / "config.json")["quantization_config"]
            bits = {target: group["weights"]["num_bits"] for group in quantization["config_groups"].values() for target in group["targets"]}
            modules = [f"model.layers.{layer}.{part}" for layer in range(3) for part in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")]
            self.assertEqual(sorted(bits), sorted(modules), "both widths are used")
            for layer in record["layers"]:
                prefix, linears = f"model.layers.{layer['layer']}.", layer["linears"]
                for whole, parts in (("self_attn.qkv_proj", FUSED[0]), ("mlp.gate_up_proj", FUSED[1])):
                    self.assertEqual({linears[part]["type"] for part in parts}, {f"int{bits[prefix + whole]} g64"})
            written = load_directory(out)
            self.assertEqual(set(written), set(load_directory(model)) - {f"{module}.weight" for module in modules}
                             | {f"{module}.{part}" for module in modules for part in ("weight_packed", "weight_scale", "weight_shape")})
            self.assertEqual(written["model.layers.1.self_attn.qkv_proj.weight_shape"].values.tolist(), [256, 128])
            self.check_export(out)
            sizes[budget[0]] = (out / "model.safetensors").stat().st_size
        self.assertLessEqual(sizes["--size"], 8_500_000)
        self.assertGreater(sizes["--size"], 8_450_000)
        nll = {}
        self.succeed("export", out, self.folder / "plain", "--dtype", "fp32")
        for path in (out, self.folder / "plain"):
            self.succeed("eval", path, "--data", f"text={self.text()}", "--seqlen", 64, "--max-windows", 8, "-o", self.folder / "result.json", "--force")
            nll[path] = read_json(self.folder / "result.json")["datasets"]["text"]["nll"]
        self.assertEqual(len(set(nll.values())), 1)

    def test_other_programs_matrices_that_are_one_are_read(self):
        model, tensors, random = self.phi(), {}, np.random.default_rng(3)
        for full, tensor in load_directory(model).items():
            module = full.removesuffix(".weight")
            if "proj" not in module:
                tensors[full] = tensor
                continue
            rows, cols = tensor.values.shape
            tensors[f"{module}.weight_packed"] = Tensor("I32", pack(random.integers(0, 8, (rows, cols)), 3, True))
            tensors[f"{module}.weight_scale"] = f16(random.uniform(0.01, 0.02, (rows, cols // 32)))
            tensors[f"{module}.weight_shape"] = Tensor("I64", np.array([rows, cols], np.int64))
            zeros = pack(random.integers(0, 8, (cols // 32, rows)), 3, True)
            tensors[f"{module}.weight_zero_point"] = Tensor("I32", np.ascontiguousarray(zeros.T))
        weights = {"num_bits": 3, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32, "dynamic": False}
        quantization = {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
                        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
        packed = copy_of(model, self.folder / "packed", tensors, quantization_config=quantization)
        self.check_export(packed)
        self.succeed("export", packed, self.folder / "plain", "--dtype", "fp32")
        # Read part by part, and as one matrix: the same weights.
        for path, name in ((packed, "a"), (self.folder / "plain", "b")):
            self.succeed("eval", path, "--data", f"text={self.text()}", "--seqlen", 64, "--max-windows", 8, "-o", self.folder / f"{name}.json")
        a, b = (read_json(self.folder / f"{name}.json")["datasets"]["text"]["nll"] for name in "ab")
        self.assertEqual(a, b)

    def test_a_file_is_no_larger_than_asked_for(self):
        size = 20_000_000
        out = self.compress("--size", size)
        written = (out / "model.safetensors").stat().st_size
        self.assertLessEqual(written, size)
        self.assertGreater(written, 0.99 * size)

    def test_widths_on_request(self):
        flags = ("--compressed-tensors-bits", "3,5", "--bits", 4)
        done = mica("compress", DEMO, self.folder / "out", "--calib", f"text={self.text()}", *self.QUICK, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sum("packed across words" in line for line in done.stderr.splitlines()), 1, done.stderr)
        groups = read_json(self.folder / "out" / "config.json")["quantization_config"]["config_groups"].values()
        self.assertEqual([group["weights"]["num_bits"] for group in groups], [3, 5])
        self.assertLessEqual(read_json(self.folder / "out" / "compression.json")["bits"]["mean_code_bits"], 4)
        self.check_export(self.folder / "out")

    def test_one_width_is_that_of_all_linear_layers_but_the_head(self):
        """Also where the head is the embedding: to transformers it is a linear layer even then."""
        quantization = read_json(self.compress() / "config.json")["quantization_config"]
        self.assertEqual([group["targets"] for group in quantization["config_groups"].values()], [["Linear"]])
        self.assertEqual(quantization["ignore"], ["lm_head"])

    def test_what_is_killed_goes_on_to_the_same_bytes(self):
        whole, killed = self.compress("--bpw", 5.0, out="whole"), self.folder / "killed"
        command = [MICA, "compress", DEMO, killed, "--calib", f"text={self.text()}", *self.QUICK, "--bpw", 5.0]
        process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (killed / ".work" / "shard-00003.json").exists():
            time.sleep(0.02)
        self.assertIsNone(process.poll(), "it was not killed while it worked")
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertFalse((killed / "model.safetensors").exists())
        self.compress("--bpw", 5.0, out="killed")
        self.assertEqual(same_bytes(whole, killed), [])
        self.assertIn("was finished before", mica(*[str(part) for part in command[1:]]).stderr)

    def test_what_cannot_be_is_refused(self):
        out, calib = self.folder / "out", f"text={self.text()}"
        for expected, flags in (("--group-size is 96, expected 32, 64 or 128", ("--group-size", 96)),
                                ("give --group-size 64", ("--tensor-parallel", 2)),
                                ("--compressed-tensors-bits has 9", ("--compressed-tensors-bits", "4,9")),
                                ("--sparsity is 0.5", ("--sparsity", 0.5)), ("for int4 g128, int8 g128", ("--bpw", 4)),
                                ("expected at least 4.1", ("--bpw", 4, "--compressed-tensors-bits", 4)),
                                ("--embedding-bits changes nothing", ("--embedding-bits", 8)), ("--lambda changes nothing", ("--lambda", 0.1))):
            self.fail_with(expected, "compress", DEMO, out, "--calib", calib, "--coding", "compressed-tensors", *flags)
            self.assertFalse(out.exists())
        self.fail_with("--tensor-parallel changes nothing", "compress", DEMO, out, "--calib", calib, "--tensor-parallel", 2)

    # ---- Directories of other programs.

    @classmethod
    def foreign_tensors(cls):
        """As llm-compressor writes them: a scale a row, groups without and with zero points, columns whose groups are named, the packing of 3 bits before
        June 2026, and layers that are left out."""
        if cls.kept:
            return dict(cls.kept)
        random = np.random.default_rng(5)
        tensors, original = cls.kept, load_directory(DEMO)
        for full, tensor in original.items():
            module = full.removesuffix(".weight")
            if "proj" not in module or ".layers.7." in module:
                tensors[full] = tensor
                continue
            w = tensor.floats()
            rows, cols = w.shape
            bits, group, symmetric, dense = 4, 128, True, True
            if "v_proj" in module:
                bits, group = 8, cols  # of a row
            if "gate_proj" in module or "up_proj" in module:
                bits, group, symmetric = 3, 32, False
                dense = "up_proj" in module
            groups, group_of = cols // group, np.arange(cols) // group
            if "down_proj" in module:
                group_of = random.permutation(group_of)
                tensors[f"{module}.weight_g_idx"] = Tensor("I32", group_of.astype(np.int32))
            scale, zero = np.zeros((rows, groups), np.float16), np.full((rows, groups), 1 << bits - 1)
            for g in range(groups):
                part = w[:, group_of == g]
                if symmetric:
                    scale[:, g] = np.abs(part).max(axis=1) / (2 ** (bits - 1) - 0.5)
                else:
                    low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
                    scale[:, g] = (high - low) / (2 ** bits - 1)
                    zero[:, g] = np.clip(np.round(-low / scale[:, g]), 0, 2 ** bits - 1)
            codes = np.clip(np.round(w / scale[:, group_of].astype(np.float32)) + zero[:, group_of], 0, 2 ** bits - 1).astype(np.int64)
            tensors[f"{module}.weight_packed"] = Tensor("I32", pack(codes, bits, dense))
            tensors[f"{module}.weight_scale"] = f16(scale)
            tensors[f"{module}.weight_shape"] = Tensor("I64", np.array([rows, cols], np.int64))
            if not symmetric:
                tensors[f"{module}.weight_zero_point"] = Tensor("I32", np.ascontiguousarray(pack(zero.T.astype(np.int64), bits, dense).T))
        return dict(tensors)

    def foreign(self, change=lambda tensors, quantization: None, name="foreign"):
        """Such a directory, which `change` may spoil."""
        tensors = self.foreign_tensors()

        def weights(bits, **more):
            return {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128, "block_structure": None, "dynamic": False,
                    "actorder": None, "observer": "minmax", "observer_kwargs": {}, "scale_dtype": None, "zp_dtype": None} | more
        quantization = {
            "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "global_compression_ratio": None,
            "kv_cache_scheme": None, "sparsity_config": {}, "transform_config": {}, "version": "0.12.2", "ignore": ["lm_head", "re:.*layers\\.7\\..*"],
            "config_groups": {
                "group_0": {"targets": ["Linear"], "weights": weights(4), "input_activations": None, "output_activations": None, "format": "pack-quantized"},
                "group_1": {"targets": ["re:.*v_proj$"], "weights": weights(8, strategy="channel", group_size=None), "input_activations": None},
                "group_2": {"targets": ["re:.*(gate|up)_proj$"], "weights": weights(3, symmetric=False, group_size=32)},
                "group_3": {"targets": ["re:.*down_proj$"], "weights": weights(4, actorder="group")}}}
        change(tensors, quantization)
        return copy_of(DEMO, self.folder / name, tensors, quantization_config=quantization)

    def test_other_programs_directories_are_read(self):
        model = self.foreign()
        decoded = self.check_export(model)
        original = load_directory(DEMO)
        for name, values in decoded.items():
            error = np.square(values - original[name].floats()).sum() / np.square(original[name].floats()).sum()
            self.assertLess(error, 0.1 if "proj" in name else 1e-9, name)
        result = self.folder / "result.json"
        self.succeed("eval", model, "--data", f"text={self.text()}", "--seqlen", 64, "--max-windows", 8, "--reference", DEMO, "-o", result)
        plain = self.folder / "plain"
        self.succeed("export", model, plain, "--dtype", "fp32")
        other = self.folder / "other.json"
        self.succeed("eval", plain, "--data", f"text={self.text()}", "--seqlen", 64, "--max-windows", 8, "--reference", DEMO, "-o", other)
        found, expected = (read_json(path)["datasets"]["text"] for path in (result, other))
        self.assertEqual(found["nll"], expected["nll"])
        self.assertEqual(found["divergence"]["kl"], expected["divergence"]["kl"])
        inspected = json.loads(self.succeed("inspect", model, "--json"))
        self.assertLess(inspected["decoder_matrices"]["bits_per_weight"], 8)
        # As any other checkpoint it may be compressed.
        self.compress("--bits", 4, model=model, out="again")
        self.check_export(self.folder / "again")

    def test_what_does_not_fit_is_one_line(self):
        q, up = "model.layers.2.self_attn.q_proj", "model.layers.2.mlp.up_proj"

        def case(expected, change, exported=True):
            path = self.foreign(change, "damaged")
            for command in (("inspect", path), ("export", path, self.folder / "no"))[:2 if exported else 1]:
                self.fail_with(expected, *command)
            shutil.rmtree(path)

        def cut(name, rows=1):
            def change(tensors, _):
                tensors[name] = Tensor(tensors[name].dtype, tensors[name].values[:-rows])
            return change

        def key(**changes):
            return lambda _, quantization: quantization.update(changes)

        def of_group(number, **changes):
            return lambda _, quantization: quantization["config_groups"][f"group_{number}"]["weights"].update(changes)

        def put(name, tensor):
            return lambda tensors, _: tensors.update({name: tensor})

        def drop(name):
            return lambda tensors, _: tensors.pop(name)

        case(f"{q}.weight_packed has shape", cut(f"{q}.weight_packed"))
        case(f"{q}.weight_scale has shape", cut(f"{q}.weight_scale"))
        case(f"{q}.weight_shape has shape", cut(f"{q}.weight_shape"))
        case(f"{up}.weight_zero_point has shape", cut(f"{up}.weight_zero_point"))
        case("weight_g_idx has shape", cut("model.layers.0.mlp.down_proj.weight_g_idx"))
        case("holds 8 for column 0", put("model.layers.0.mlp.down_proj.weight_g_idx", Tensor("I32", np.full(1024, 8, np.int32))))
        case(f"{q}.weight_scale is missing", drop(f"{q}.weight_scale"))
        case(f"{up}.weight_zero_point is missing", drop(f"{up}.weight_zero_point"))
        case(f"without {q}.weight_packed", drop(f"{q}.weight_packed"))
        case(f"{q}.weight_zero_point is there, but", put(f"{q}.weight_zero_point", Tensor("I32", np.zeros((48, 3), np.int32))))
        case(f"tensor {q}.weight_scale has dtype I32", put(f"{q}.weight_scale", Tensor("I32", np.zeros((384, 3), np.int32))))
        case(f"{q}.weight is there, but config.json says", put(f"{q}.weight", f16(np.zeros((384, 384)))))
        case("holds -1", put(f"{q}.weight_shape", Tensor("I64", np.array([-1, 384], np.int64))))
        case("expected [384, 384]", lambda tensors, _: tensors.update({
            f"{q}.weight_shape": Tensor("I64", np.array([192, 384], np.int64)), f"{q}.weight_packed": Tensor("I32", tensors[f"{q}.weight_packed"].values[:192]),
            f"{q}.weight_scale": f16(tensors[f"{q}.weight_scale"].values[:192])}), exported=False)  # a matrix, though not of this model
        # A quantization_config that lies.
        case("of 8 bits (group_0)", of_group(0, num_bits=8))
        case("weight_scale has shape", of_group(0, group_size=64))
        case("groups of 100", of_group(0, group_size=100))
        case("layers.7.self_attn.q_proj", key(ignore=[]))
        case(f"ignores {q}", key(ignore=["re:.*layers\\.7\\..*", q]))
        case("has no target for", lambda _, quantization: quantization["config_groups"].pop("group_0"))
        # What is not supported, by name.
        case("\"marlin-24\"", key(format="marlin-24"))
        case("sparsity_config", key(sparsity_config={"format": "sparse-24-bitmask"}))
        case("\"surprise\"", key(surprise=1))
        case("activations that are quantised", lambda _, quantization: quantization["config_groups"]["group_0"].update(input_activations={"num_bits": 8}))
        nan = np.full((384, 3), np.nan)
        path = self.foreign(lambda tensors, _: tensors.update({f"{q}.weight_scale": f16(nan)}), "nan")
        self.fail_with(f"tensor {q}.weight holds NaN", "eval", path, "--data", f"text={self.text()}")

    def test_a_file_that_was_changed_is_known(self):
        out = self.compress()
        weights = out / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-100])
        self.fail_with("model.safetensors", "eval", out, "--data", f"text={self.text()}")
        tensors, _ = load(self.compress("--group-size", 64, out="other") / "model.safetensors")
        save(weights, tensors)
        self.fail_with("compression.json says", "eval", out, "--data", f"text={self.text()}")


@unittest.skipIf(transformers is None, "SKIP: no packages transformers and compressed_tensors")
class TransformersTest(CompressedTensorsFolder):
    """transformers loads a directory as it is, by compressed_tensors, and computes with the weights that mica exports."""

    def load(self, path):
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            self.assertFalse(loading.get(key), f"{path}: {key} {loading.get(key)}")
        return model.eval()

    def test_it_loads_what_was_written(self):
        ids = torch.tensor([[1, *range(300, 340)]])
        cases = {"two_widths": ("--bpw", 5.2), "one_width": ("--compressed-tensors-bits", "4"), "groups": ("--group-size", 32, "--bpw", 5.2),
                 "three_bits": ("--compressed-tensors-bits", "3,5", "--bits", 4), "head": ("--bpw", 5.2)}
        for name, flags in cases.items():
            with self.subTest(name):
                path = self.compress(*flags, model=self.untied() if name == "head" else DEMO, out=name)
                exported = self.folder / f"{name}_exported"
                self.succeed("export", path, exported, "--to", "hf", "--dtype", "fp32")
                theirs, ours = self.load(path), self.load(exported)
                with torch.no_grad():
                    logits = theirs(ids).logits
                    self.assertTrue(torch.equal(logits, ours(ids).logits), name)
                    self.assertTrue(torch.equal(theirs.generate(ids, max_new_tokens=20, do_sample=False), ours.generate(ids, max_new_tokens=20, do_sample=False)))
                weights = dict(theirs.named_parameters())
                for key, value in ours.named_parameters():
                    self.assertTrue(torch.equal(weights[key], value), f"{name}: {key}")


if __name__ == "__main__":
    main()
