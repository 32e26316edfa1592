"""mica generate and mica bench on the demo checkpoint: greedy text against the log-probabilities that eval finds, streams,
seeds, stop strings, contexts, and what is refused."""
import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

from program import DEMO, MICA, ProgramTest, mica

PROMPT = "The history of the city begins"


class GenerateTest(ProgramTest):
    def generate(self, *arguments, model=DEMO, **options):
        return self.succeed("generate", model, *arguments, "--device", "cpu", "--log-level", "error", **options)

    def generate_json(self, *arguments, **options):
        return json.loads(self.generate(*arguments, "--json", **options))

    def test_greedy_text_is_the_same_with_any_number_of_threads_and_from_any_source(self):
        text = self.generate("--prompt", PROMPT, "--max-tokens", "48", "--threads", "1")
        self.assertGreater(len(text), 40)
        self.assertEqual(text, self.generate("--prompt", PROMPT, "--max-tokens", "48", "--threads", "2"))
        file = self.folder / "prompt.txt"
        file.write_text(PROMPT)
        self.assertEqual(text, self.generate("-f", file, "--max-tokens", "48"))
        self.assertEqual(text, self.generate("-", "--max-tokens", "48", input=PROMPT))
        told = self.generate_json("--prompt", PROMPT, "--max-tokens", "48", "--top", "3")
        self.assertEqual(told["text"].rstrip("\n"), text.rstrip("\n"))
        self.assertEqual("".join(token["text"] for token in told["tokens"]), told["text"])
        self.assertEqual((told["finish"], len(told["tokens"])), ("length", 48))
        for token in told["tokens"]:
            self.assertEqual(token["top"][0]["id"], token["id"])
            self.assertAlmostEqual(token["top"][0]["log_probability"], token["log_probability"])
            self.assertEqual(len(token["top"]), 3)

    def test_log_probabilities_are_those_that_eval_measures(self):
        told = self.generate_json("--prompt", PROMPT, "--max-tokens", "40")
        text = self.folder / "all.txt"
        text.write_text(PROMPT + told["text"])
        ids = json.loads(self.succeed("tokenize", DEMO, text))
        new = [token["id"] for token in told["tokens"]]
        self.assertEqual(ids[-len(new):], new)
        result = json.loads(self.succeed("eval", DEMO, "--data", f"text={text}", "--seqlen", len(ids), "--dtype", "fp32",
                                         "--device", "cpu", "--json", "--log-level", "error"))
        prompt = told["prompt_tokens"]
        whole = result["datasets"]["text"]["window_nll"][0] * (len(ids) - 1)
        head = self.folder / "head.txt"
        head.write_text(PROMPT)
        first = json.loads(self.succeed("eval", DEMO, "--data", f"text={head}", "--seqlen", prompt, "--dtype", "fp32",
                                        "--device", "cpu", "--json", "--log-level", "error"))
        before = first["datasets"]["text"]["window_nll"][0] * (prompt - 1)
        self.assertAlmostEqual(-sum(token["log_probability"] for token in told["tokens"]), whole - before, delta=0.02)

    def test_one_seed_is_one_text(self):
        options = ("--prompt", PROMPT, "--max-tokens", "30", "--temperature", "1", "--top-k", "50")
        one = self.generate(*options, "--seed", "5")
        self.assertEqual(one, self.generate(*options, "--seed", "5", "--threads", "1"))
        self.assertNotEqual(one, self.generate(*options, "--seed", "6"))

    def test_stop_strings_end_the_text_and_are_not_shown(self):
        text = self.generate("--prompt", PROMPT, "--max-tokens", "48").rstrip("\n")
        stop = text[20:26]
        told = self.generate_json("--prompt", PROMPT, "--max-tokens", "48", "--stop", stop, "--stop", "never there")
        self.assertEqual(told["finish"], "stop")
        self.assertEqual(told["text"], text[:text.index(stop)])

    def test_the_context_ends_the_text_and_longer_prompts_are_refused(self):
        told = self.generate_json("--prompt", PROMPT, "--ctx", "16")
        self.assertEqual((told["finish"], told["prompt_tokens"] + len(told["tokens"])), ("length", 16))
        prompt = told["prompt_tokens"]
        self.fail_with(f"the prompt has {prompt} tokens, but the context has room for {prompt}", "generate", DEMO,
                       "--prompt", PROMPT, "--ctx", prompt, "--device", "cpu")

    def test_keys_of_eight_bits_change_little(self):
        sixteen = self.generate_json("--prompt", PROMPT, "--max-tokens", "1")["tokens"][0]
        eight = self.generate_json("--prompt", PROMPT, "--max-tokens", "1", "--kv-bits", "8")["tokens"][0]
        self.assertEqual(sixteen["id"], eight["id"])
        self.assertAlmostEqual(sixteen["log_probability"], eight["log_probability"], delta=0.05)

    def test_an_empty_text_begins_with_bos(self):
        empty = self.folder / "empty.txt"
        empty.write_text("")
        of_file = self.generate_json("-f", empty, "--max-tokens", "8")
        self.assertEqual((of_file["prompt_tokens"], len(of_file["tokens"])), (1, 8))
        self.assertEqual(self.generate_json("--prompt", "", "--max-tokens", "8")["text"], of_file["text"])

    def test_an_empty_text_is_refused_where_nothing_begins_texts(self):
        model = self.folder / "byte_level"
        source = self.folder / "tokenizer"
        source.mkdir()
        # Bytes and nothing else: no token begins a text.
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        vocab = {chr(byte) if byte in printable else chr(256 + others.index(byte)): byte for byte in range(256)}
        (source / "tokenizer.json").write_text(json.dumps({
            "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None, "decoder": level, "pre_tokenizer": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []}}))
        self.succeed("synthesize", model, "--tokenizer", source, "--vocab", 256, "--layers", 1, "--hidden", 32, "--ffn", 64, "--heads", 2)
        self.fail_with("the prompt is empty and the model has no token that begins a text", "generate", model, "--prompt", "", "--device", "cpu")

    def test_what_is_refused(self):
        self.fail_with("no prompt is given", "generate", DEMO, code=2)
        self.fail_with("more than one prompt", "generate", DEMO, "-", "--prompt", "a", code=2)
        bad = self.folder / "bad.txt"
        bad.write_bytes(b"a\xff")
        self.fail_with("is not UTF-8 at byte 1", "generate", DEMO, "-f", bad)
        self.fail_with("--top-p is 2, expected 0 to 1", "generate", DEMO, "--prompt", "a", "--top-p", "2")
        self.fail_with("nothing_here", "generate", self.folder / "nothing_here", "--prompt", "a")

    def test_a_closed_pipe_and_an_interrupt_end_it(self):
        done = subprocess.run(f"'{MICA}' generate '{DEMO}' --prompt '{PROMPT}' --device cpu --ctx 2000 | head -c 20",
                              shell=True, capture_output=True, text=True, timeout=120)
        self.assertEqual(len(done.stdout), 20)
        self.assertIn("stdout: writing failed", done.stderr)
        running = subprocess.Popen([MICA, "generate", str(DEMO), "--prompt", PROMPT, "--device", "cpu", "--ctx", "2000"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.stdout.read(10)
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130)
        self.assertIn('ends with "interrupted"', said)

    def test_bench_puts_models_side_by_side(self):
        result = json.loads(self.succeed("bench", DEMO, DEMO, "--prompt-tokens", "32", "--generated-tokens", "8", "--repetitions",
                                         "2", "--device", "cpu", "--json", "--log-level", "error"))
        self.assertEqual(len(result["models"]), 2)
        for model in result["models"]:
            self.assertGreater(model["decode"]["tokens_per_second"], 0)
            self.assertGreater(model["prompt"]["tokens_per_second"], 0)
            self.assertAlmostEqual(model["bits_per_weight"], 16, delta=0.1)
            self.assertGreater(model["peak_bytes"], model["weight_bytes"])

    def test_packed_models_continue_as_their_decoded_weights_do(self):
        calib = self.text("calib.txt")
        for coding in ("entropy", "fixed"):
            packed, plain = self.folder / coding, self.folder / f"{coding}_plain"
            self.succeed("compress", DEMO, packed, "--coding", coding, "--bits", "4", "--calib", f"text={calib}",
                         "--samples", "4", "--seqlen", "128", "--preset", "fast", "--device", "cpu", "--log-level", "error")
            self.succeed("export", packed, plain, "--dtype", "fp32", "--log-level", "error")
            of_packed = self.generate_json("--prompt", PROMPT, "--max-tokens", "24", model=packed)
            of_plain = self.generate_json("--prompt", PROMPT, "--max-tokens", "24", model=plain)
            self.assertEqual(of_packed["text"], of_plain["text"], coding)
            for a, b in zip(of_packed["tokens"], of_plain["tokens"]):
                self.assertAlmostEqual(a["log_probability"], b["log_probability"], delta=2e-3)

    @unittest.skipUnless("MICA_REFERENCE_TEXT" in os.environ, "MICA_REFERENCE_TEXT does not name the program")
    def test_the_reference_kernels_write_the_same_text(self):
        """Their likeliest tokens behind each token of the text: where these are its tokens, they had written it themselves."""
        packed = self.folder / "packed"
        self.succeed("compress", DEMO, packed, "--coding", "entropy", "--bpw", "3.05", "--calib", f"text={self.text('calib.txt')}",
                     "--samples", "4", "--seqlen", "128", "--preset", "fast", "--device", "cpu", "--log-level", "error")
        for model in (DEMO, packed):
            told = self.generate_json("--prompt", PROMPT, "--max-tokens", "256", model=model)
            (self.folder / "prompt.txt").write_text(PROMPT)
            prompt = json.loads(self.succeed("tokenize", model, self.folder / "prompt.txt"))
            new = [token["id"] for token in told["tokens"]]
            self.assertEqual((len(new), len(prompt)), (256, told["prompt_tokens"]))
            done = subprocess.run([os.environ["MICA_REFERENCE_TEXT"], str(model)], input=json.dumps(prompt + new) + "\n",
                                  capture_output=True, text=True, check=True, timeout=600)
            said = [json.loads(line) for line in done.stdout.splitlines()][len(prompt) - 1:-1]
            # Where two tokens are as likely as one another, either may come.
            parted = [(place, best, token) for place, ((best, most, logit), token) in enumerate(zip(said, new))
                      if best != token and most - logit > 1e-3]
            self.assertEqual(parted, [], model)


if __name__ == "__main__":
    unittest.main()
