"""Every option from the outside: what --help says of it, and that values it cannot have are refused in one line."""
import functools
import json
import re
from concurrent.futures import ThreadPoolExecutor

from program import DEMO, ProgramTest, main, mica

ROW = re.compile(r"^  (?:-\w,)?(--[a-z-]+) (NUMBER|INTEGERS?|BYTES|WORD)(?:=(\S+))?(?: \.\.\.)?\s*(\S.*)$")


@functools.lru_cache
def table(command):
    """What --help says of the options that have a range: flag -> (kind, default, expected)."""
    lines = re.sub(r"\n {10,}(?=\S)", "  ", mica(command, "--help").stdout).splitlines()
    found = {}
    for line in lines:
        if row := ROW.match(line):
            found[row[1]] = row[2], row[3], row[4][row[4].rindex("(") + 1:-1].split(";")[0]
    return found


def borders(kind, expected):
    """Least and most of a range such as "0 to 4", and whether each is in it; None when the values are words."""
    expected = re.sub(r" (bits|bytes|windows|tokens)$", "", expected)
    if kind == "INTEGERS":
        return None
    if shape := re.fullmatch(r"(\S+) to (\S+)", expected):
        return float(shape[1]), float(shape[2]), True, True
    if shape := re.fullmatch(r"more than (\S+) and at most (\S+)", expected):
        return float(shape[1]), float(shape[2]), False, True
    if shape := re.fullmatch(r"(\S+) or more and less than (\S+)", expected):
        return float(shape[1]), float(shape[2]), True, False
    if kind == "INTEGER":
        numbers = [float(number) for number in re.split(r", | or ", expected)]
        return min(numbers), max(numbers), True, True
    return None


def show(number):
    return str(int(number)) if number == int(number) else repr(number)


def wrong_values(kind, expected):
    if kind == "INTEGERS":
        return ["", "-1", "260", "2.9", "nan", "4,4", "many"]
    if kind == "WORD":
        return ["other", "", "nan", "-1", "TRUE"]
    least, most, has_least, has_most = borders(kind, expected)
    step = 0.5 if kind == "NUMBER" else 1
    wrong = ["nan", "much", show(least - step), show(most + step)]
    if kind == "INTEGER":
        wrong.append("2.9")
    wrong += ["inf", "-1", "1e400", "99999999999999999999", "", "4x"]
    return wrong + ([] if has_least else [show(least)]) + ([] if has_most else [show(most)])


def right_values(kind, expected):
    if kind == "INTEGERS":
        return [expected.removeprefix("some of ").replace(" ", "")]
    if kind == "WORD":
        return re.split(r", | or ", expected)
    least, most, has_least, has_most = borders(kind, expected)
    return [show(least) if has_least else "1e-300", show(most) if has_most else "0.9999999999999999"]


class OptionsTest(ProgramTest):
    def start(self, command):
        """A command line that fails because its text is missing, after its flags are read."""
        return {"compress": ["compress", DEMO, self.folder / "out", "--calib", "text=missing.txt"],
                "eval": ["eval", DEMO, "--data", "text=missing.txt"],
                "synthesize": ["synthesize", "/dev/null/out"]}[command]

    def beside(self, flag):
        """What an option cannot be given without."""
        return ["--data", "text=missing.txt"] if flag in ("--max-kl", "--min-retention") else []

    def check(self, cases, judge):
        with ThreadPoolExecutor(4) as pool:
            for case, done in zip(cases, pool.map(lambda case: mica(*self.start(case[0]), *self.beside(case[1]), case[1], case[2]), cases)):
                with self.subTest(case=case):
                    self.assertEqual(len([line for line in done.stderr.splitlines() if line.startswith(("mica: ", "--"))]), 1, done.stderr)
                    judge(case, done)

    def test_help_lists_every_option(self):
        compress = table("compress")
        self.assertEqual(set(compress), {f"--{name}" for name in (
            "preset", "coding", "bits", "bpw", "size", "sparsity", "pattern", "grouping", "groups", "estimator", "bit-options", "group-size", "compressed-tensors-bits", "tensor-parallel",
            "damping", "energy-weight", "information-weight", "saliency-exponent", "trellis", "lambda", "row-feedback", "token-weights",
            "sampled-labels", "refine-passes", "statistics-windows", "drift-compensation", "trellis-window", "trellis-ahead", "drift-windows", "fisher-windows",
            "embedding-bits", "dtype", "samples", "seqlen", "bos", "max-kl", "min-retention", "max-windows", "threads", "seed", "log-level", "device-memory")})
        self.assertEqual(compress["--lambda"], ("NUMBER", "0.25", "0 to 4"))
        self.assertEqual(compress["--bits"], ("NUMBER", "4", "more than 0 and at most 16 bits"))
        self.assertEqual(compress["--bit-options"], ("INTEGERS", "2,3,4,6,8", "some of 0, 2, 3, 4, 6, 8, 16"))
        self.assertEqual({flag for flag, (_, default, _) in compress.items() if default is None}, {"--bpw", "--size", "--seqlen", "--bos", "--max-kl", "--min-retention", "--device-memory"})
        whole = mica("compress", "--help").stdout
        for flag in ("--calib", "--statistics", "--device", "--json"):
            self.assertIn(f"  {flag} ", whole)
        self.assertIn("coding entropy, gguf, compressed-tensors: 16; preset fast: 4; preset best: 32", whole)
        # The keys of an experiment are the same options.
        experiment = self.folder / "experiment.json"
        experiment.write_text(json.dumps({"model": "m", "directory": "d", "evaluate": {"data": [{"path": "t"}]}, "compress": {"?": 1}}))
        refusal = mica("run", experiment).stderr
        for flag in set(compress) - {"--bits", "--bpw", "--size", "--max-kl", "--min-retention", "--max-windows", "--threads", "--log-level", "--device", "--device-memory"}:
            self.assertIn(flag[2:].replace("-", "_"), refusal)

    def test_values_that_cannot_be_are_refused(self):
        cases = [(command, flag, value) for command in ("compress", "eval", "synthesize") for flag, (kind, _, expected) in table(command).items()
                 for value in wrong_values(kind, expected) if command == "compress" or flag not in table("compress")]

        def refused(case, done):
            command, flag, value = case
            kind, _, expected = table(command)[flag]
            self.assertEqual(done.returncode, 1, done.stderr)
            shown = "1e+20" if len(value) == 20 and kind != "BYTES" else value.split(",")[-1] if kind == "INTEGERS" else value
            for part in (flag, shown, "a whole number of bytes" if kind == "BYTES" and "bytes such as" in done.stderr else expected):
                self.assertIn(part, done.stderr)

        self.check(cases, refused)

    def test_both_borders_are_taken(self):
        cases = [("compress", flag, value) for flag, (kind, _, expected) in table("compress").items() for value in right_values(kind, expected)]

        def taken(case, done):
            # The text is missing, or the value does not go with the others: not the value itself.
            self.assertEqual(done.returncode, 1)
            self.assertNotRegex(done.stderr, rf"{case[1]} (is|has) [^;]*, expected {re.escape(table('compress')[case[1]][2])}")

        self.check(cases, taken)

    def test_budgets_exclude_one_another(self):
        self.fail_with("more than one budget; give one of --bits, --bpw and --size", *self.start("compress"), "--bits", 4, "--bpw", 3)
        self.fail_with("more than one budget", *self.start("compress"), "--size", "40MB", "--bpw", 3)

    def test_experiments_are_checked_as_flags_are(self):
        experiment = self.folder / "experiment.json"
        for part, key, value, expected in (("compress", "samples", 2.9, "a whole number, 1 to"), ("compress", "trellis", 1, "true or false"),
                                           ("compress", "bit_options", [260], "has 260"), ("compress", "lambda", "0.5", "0 to 4"),
                                           ("compress", "budget", {"kind": "bits", "value": 17}, "at most 16"),
                                           ("compress", "calib", [], "names no text"), ("evaluate", "max_windows", -1, "0 to"),
                                           ("evaluate", "seqlen", 1, "2 to"), ("evaluate", "convention", "mine", "gptq or llamacpp"),
                                           ("evaluate", "divergence", 1, "true or false")):
            content = {"model": "m", "directory": "out", "evaluate": {"data": [{"path": "t"}]}, "compress": {"calib": [{"path": "t"}]}}
            content[part][key] = value
            experiment.write_text(json.dumps(content))
            self.fail_with(expected, "run", experiment)
            self.assertIn(f'"{part}"', mica("run", experiment).stderr)

    def test_usage_is_told_in_one_line_of_our_own(self):
        """What is wrong with a command line, and the nearest thing to what was meant."""
        data = ["eval", DEMO, "--data", "text=missing.txt"]
        for arguments, expected in (
                ([*self.start("compress"), "--lamda", 1], "unknown option --lamda; did you mean --lambda?"),
                (["compress", "--lamda", 1], "did you mean --lambda?"), ([*data, "-seqlen", 5], "did you mean --seqlen?"),
                ([*data, "--quiet"], "unknown option --quiet; see 'mica eval --help'"), (["compres"], "unknown command compres; did you mean compress?"),
                ([], "no command is given"), (["compress", DEMO], "out is missing"), (["eval", DEMO], "--data is missing"),
                ([*data, "--seqlen"], "--seqlen is given without a value"), ([*data, "--seqlen=", ], "--seqlen is given without a value"),
                (["--threads", 2, *data], "--threads stands before the command"), ([*data[:2], "more", *data[2:]], "more is more than the command takes")):
            with self.subTest(arguments=arguments):
                self.fail_with(expected, *arguments, code=2)
        for arguments, expected in (
                ([*data, "--special-tokens=maybe"], "--special-tokens is 'maybe', expected true or false"),
                (["tokenize", DEMO, "f", "--bos=perhaps"], "--bos is 'perhaps', expected true or false"),
                (["compare", "a", "b", "--format", "pdf"], "--format is 'pdf', expected text, json, markdown or html"),
                (["compare", "a", "b", "--lang", ""], "--lang is '', expected en or zh"), (["compare", "a", "b", "-o", ""], "--output is '', expected a path"),
                (["export", "a", "b", "--dtype", "int8"], "--dtype is 'int8', expected fp16, bf16 or fp32"), (["inspect", DEMO, "--json=7"], "--json is '7'"),
                (["status", "r", "--watch=x"], "--watch is 'x'"), ([*data, "-o", ""], "--output is ''")):
            with self.subTest(arguments=arguments):
                self.fail_with(expected, *arguments)
        for arguments in ([*data, "--seqlen", 4, "--seqlen", 5], [*self.start("compress"), "--seqlen", 9, "--calib-seqlen", 9]):
            self.fail_with("--seqlen is given twice", *arguments)

    def test_every_value_of_every_command_is_checked(self):
        """Also the flags that --help gives no range for, and the empty word for everything."""
        start = {"compare": ["compare", "a", "b"], "export": ["export", "a", self.folder / "b"], "inspect": ["inspect", "a"],
                 "status": ["status", "a"], "tokenize": ["tokenize", "a", "b"], "run": ["run", "a"], "sweep": ["sweep", "a"], "ablate": ["ablate", "a"],
                 **{command: self.start(command) for command in ("compress", "eval", "synthesize")}}
        cases = []
        for command, arguments in start.items():
            flags = re.findall(r"^  (?:-\w,)?(--[a-z-]+)", mica(command, "--help").stdout, re.M)
            self.assertTrue({"--json", "--bos", "--dtype"} & set(flags), flags)
            for flag in set(flags) - {"--help", "--version"}:
                cases += [(arguments, flag, "="), (arguments, flag, "=nan"), (arguments, flag, "=-1"), (arguments, flag, " ")]

        def run(case):
            arguments, flag, value = case
            return mica(*arguments, *([flag, ""] if value == " " else [flag + value]))

        with ThreadPoolExecutor(4) as pool:
            for case, done in zip(cases, pool.map(run, cases)):
                with self.subTest(case=case):
                    self.assertIn(done.returncode, (1, 2), done.stdout)
                    self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                    self.assertTrue(done.stderr.startswith("mica: "), done.stderr)
                    self.assertNotRegex(done.stderr, r"terminate|exception|std::|\[json|CLI::")

    def test_old_names_are_taken_and_not_shown(self):
        for command, old, new in (("compress", "--calib-seqlen", "--seqlen"), ("tokenize", "--special", "--special-tokens")):
            shown = mica(command, "--help").stdout
            self.assertNotRegex(shown, rf"{old}[^-]")
            self.assertIn(new, shown)
        self.fail_with("--seqlen is 7, expected 8 to", *self.start("compress"), "--calib-seqlen", 7)
        text = self.folder / "text"
        text.write_text("a<s>b")
        self.assertEqual(self.succeed("tokenize", DEMO, text, "--special"), self.succeed("tokenize", DEMO, text, "--special-tokens"))
        self.assertEqual(self.succeed("tokenize", DEMO, text, "--no-bos"), self.succeed("tokenize", DEMO, text, "--bos=off"))
        self.assertNotEqual(self.succeed("tokenize", DEMO, text), self.succeed("tokenize", DEMO, text, "--special"))

    def test_every_key_of_an_experiment_is_checked(self):
        experiment = self.folder / "experiment.json"
        base = {"name": "n", "model": str(DEMO), "directory": "out", "force": False,
                "evaluate": {"data": [{"kind": "text", "path": "missing", "name": "t"}]},
                "compress": {"calib": [{"kind": "text", "path": "missing", "weight": 1}], "budget": {"kind": "bits", "value": 4}},
                "samples": {"tokens": 8}}

        def refusal(content):
            experiment.write_text(content)
            return mica("run", experiment)

        def keys(part):
            text = refusal(json.dumps({**base, part: {**base[part], "?": 1}} if part else {**base, "?": 1})).stderr
            return text.rsplit("expected one of ", 1)[1].strip().split(", ")

        places = [(key,) for key in keys(None)] + [(part, key) for part in ("evaluate", "compress", "samples") for key in keys(part)]
        places += [("compress", "budget", "kind"), ("compress", "budget", "value"), ("compress", "calib", 0, "kind"), ("compress", "calib", 0, "path"),
                   ("compress", "calib", 0, "weight"), ("evaluate", "data", 0, "kind"), ("evaluate", "data", 0, "path"), ("evaluate", "data", 0, "name")]
        self.assertGreater(len(places), 50)
        for place in places:
            for bad in ("NaN", "Infinity", "-1", "2.9", "1e400", "99999999999999999999", '""', '"abc"', "null", "[]", "{}", "true", '"true"', "[null]"):
                if bad in ('"abc"', '"true"') and place[-1] in ("name", "model", "directory", "path"):
                    continue
                if (bad, place[-1]) in (("99999999999999999999", "weight"), ("{}", "budget"), ("{}", "compress")):
                    continue
                if bad == "2.9" and place[-1] in ("value", "weight", "damping", "lambda", "energy_weight", "information_weight", "saliency_exponent"):
                    continue
                if bad == "true" and place[-1] in ("force", "divergence", "trellis", "row_feedback", "token_weights", "sampled_labels"):
                    continue
                content = json.loads(json.dumps(base))
                inner = content
                for key in place[:-1]:
                    inner = inner[key]
                inner[place[-1]] = "@"
                with self.subTest(place=place, bad=bad):
                    done = refusal(json.dumps(content).replace('"@"', bad))
                    self.assertEqual(done.returncode, 1, done.stdout)
                    self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                    self.assertTrue(done.stderr.startswith(f"mica: {experiment}"), done.stderr)
                    if bad not in ("NaN", "Infinity", "1e400"):
                        self.assertIn(str(place[-1]) if place[-1] != "value" else "budget", done.stderr)
        self.assertFalse((self.folder / "out").exists())

    def test_a_key_twice_is_refused_where_people_write(self):
        experiment = self.folder / "experiment.json"
        for text in ('{"model": "a", "model": "b"}', '{"compress": {"samples": 4, "samples": 8}}', '{"evaluate": {"data": [{"path": "a", "path": "b"}]}}'):
            experiment.write_text(text)
            for command in ("run", "ablate"):
                self.fail_with("is given twice in one object", command, experiment)


if __name__ == "__main__":
    main()
