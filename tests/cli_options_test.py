"""Every option from the outside: what --help says of it, and that values it cannot have are refused in one line."""
import functools
import json
import re
from concurrent.futures import ThreadPoolExecutor

from program import DEMO, ProgramTest, main, mica

ROW = re.compile(r"^  (--[a-z-]+) (NUMBER|INTEGERS?|BYTES|WORD)(?:=(\S+))?(?: \.\.\.)?\s*(\S.*)$")


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
        return ["other"]
    least, most, has_least, has_most = borders(kind, expected)
    step = 0.5 if kind == "NUMBER" else 1
    wrong = ["nan", "much", show(least - step), show(most + step)]
    if kind == "INTEGER":
        wrong.append("2.9")
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

    def check(self, cases, judge):
        with ThreadPoolExecutor(4) as pool:
            for case, done in zip(cases, pool.map(lambda case: mica(*self.start(case[0]), case[1], case[2]), cases)):
                with self.subTest(case=case):
                    self.assertEqual(len([line for line in done.stderr.splitlines() if line.startswith(("mica: ", "--"))]), 1, done.stderr)
                    judge(case, done)

    def test_help_lists_every_option(self):
        compress = table("compress")
        self.assertEqual(set(compress), {f"--{name}" for name in (
            "preset", "coding", "bits", "bpw", "size", "sparsity", "pattern", "grouping", "groups", "estimator", "bit-options", "group-size",
            "damping", "energy-weight", "information-weight", "saliency-exponent", "trellis", "lambda", "row-feedback", "token-weights",
            "sampled-labels", "refine-passes", "statistics-windows", "drift-compensation", "drift-damping", "drift-windows", "fisher-windows",
            "embedding-bits", "dtype", "samples", "calib-seqlen", "threads", "seed", "log-level")})
        self.assertEqual(compress["--lambda"], ("NUMBER", "0.25", "0 to 4"))
        self.assertEqual(compress["--bits"], ("NUMBER", "4", "more than 0 and at most 16 bits"))
        self.assertEqual(compress["--bit-options"], ("INTEGERS", "2,3,4,6,8", "some of 0, 2, 3, 4, 6, 8, 16"))
        self.assertEqual({flag for flag, (_, default, _) in compress.items() if default is None}, {"--bpw", "--size"})
        whole = mica("compress", "--help").stdout
        for flag in ("--calib", "--statistics", "--device", "--json"):
            self.assertIn(f"  {flag} ", whole)
        self.assertIn("coding entropy: 16; preset fast: 4; preset best: 32", whole)
        # The keys of an experiment are the same options.
        experiment = self.folder / "experiment.json"
        experiment.write_text(json.dumps({"model": "m", "directory": "d", "evaluate": {"data": [{"path": "t"}]}, "compress": {"?": 1}}))
        refusal = mica("run", experiment).stderr
        for flag in set(compress) - {"--bits", "--bpw", "--size", "--calib-seqlen", "--threads", "--log-level"}:
            self.assertIn(flag[2:].replace("-", "_"), refusal)

    def test_values_that_cannot_be_are_refused(self):
        cases = [(command, flag, value) for command in ("compress", "eval", "synthesize") for flag, (kind, _, expected) in table(command).items()
                 for value in wrong_values(kind, expected) if command == "compress" or flag not in table("compress")]

        def refused(case, done):
            command, flag, value = case
            kind, _, expected = table(command)[flag]
            common = flag in ("--threads", "--seed", "--log-level")
            self.assertEqual(done.returncode, 1 if command == "compress" or common else 2, done.stderr)
            for part in (flag, value.split(",")[-1] if kind == "INTEGERS" else value, "a number of bytes" if kind == "BYTES" and "bytes such as" in done.stderr else expected):
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

    def test_unknown_flags_are_usage(self):
        self.assertEqual(mica(*self.start("compress"), "--lamda", "1").returncode, 2)


if __name__ == "__main__":
    main()
