"""Files and streams of every command from the outside: outputs over inputs, two processes, links and permissions,
closed and full streams, foreign text on a terminal, little memory."""
import fcntl
import json
import os
import pathlib
import pty
import resource
import shutil
import signal
import struct
import subprocess
import termios
import time
import unittest

from program import DEMO, MICA, SANITIZED, ProgramTest, main, mica, read_json

PROSE = "The river ran past the mill and under the old stone bridge, and nobody could say who had built it, or when.\n"
QUICK = ["--seqlen", "64", "--max-windows", "2"]
SMALL = ["--samples", "2", "--calib-seqlen", "64", "--bits", "4"]


class FilesTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "m"
        self.succeed("synthesize", self.model, "--tokenizer", DEMO)
        self.prose = self.folder / "t.txt"
        self.prose.write_text(PROSE * 60)
        self.data = ["--data", f"text={self.prose}", *QUICK]
        self.calib = ["--calib", f"text={self.prose}", *SMALL]

    def compressed(self, name="packed"):
        self.succeed("compress", self.model, self.folder / name, *self.calib)
        return self.folder / name

    def experiment(self, directory="run", **changes):
        """An experiment file for the small model."""
        calibration = self.folder / "calibration.txt"
        calibration.write_text(PROSE[::-1] * 60)
        content = {"model": "m", "directory": directory,
                   "evaluate": {"data": [{"kind": "text", "path": "t.txt"}], "seqlen": 64, "max_windows": 2},
                   "compress": {"calib": [{"kind": "text", "path": "calibration.txt"}], "samples": 2, "seqlen": 64,
                                "budget": {"kind": "bits", "value": 4}}}
        content.update(changes)
        path = self.folder / "experiment.json"
        path.write_text(json.dumps(content))
        return path

    def contents(self, *paths):
        return {path: path.read_bytes() for root in paths for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()}

    def test_outputs_over_inputs_are_refused_before_anything_is_done(self):
        packed = self.compressed()
        result, other = self.folder / "a.json", self.folder / "b.json"
        for path in (result, other):
            self.succeed("eval", self.model, *self.data, "-o", path)
        hard, link, model_link = self.folder / "hard", self.folder / "link", self.folder / "ml"
        os.link(self.model / "model.safetensors", hard)
        link.symlink_to(self.prose)
        model_link.symlink_to("m")
        before = self.contents(self.model, self.prose, packed, result, other)
        for out in (self.model / "model.safetensors", self.model / "config.json", self.model / "tokenizer.model", self.prose, hard, link,
                    model_link / "model.safetensors", self.model / "tokenizer.json"):
            self.fail_with(str(out), "eval", self.model, *self.data, "-o", out)
        self.fail_with("is a file of the directory", "eval", packed, "--reference", self.model, *self.data, "-o", self.model / "config.json")
        self.fail_with("is also an input", "compare", result, other, "-o", result)
        self.fail_with("is also an input", "compare", result, other, "--html", other)
        self.fail_with("two outputs", "compare", result, other, "-o", self.folder / "r", "--html", self.folder / "r")
        for out, said in ((self.model, "is the same as"), (self.model / "new", "lies in the directory"), (model_link, "is the same as")):
            self.fail_with(said, "compress", self.model, out, *self.calib)
        self.fail_with("is also an input", "compress", self.model, self.folder / "o", *self.calib, "--statistics", self.prose)
        self.fail_with("is a file of the directory", "compress", self.model, self.folder / "o", *self.calib, "--statistics", hard)
        self.fail_with("lies in the directory", "compress", self.model, self.folder / "o", *self.calib, "--statistics", self.folder / "o" / "s")
        self.fail_with("lies in the directory", "export", packed, packed / "plain")
        self.fail_with("lies in the directory", "synthesize", self.model / "new", "--tokenizer", self.model)
        self.fail_with("lies in the directory", "run", self.experiment(directory="m/run"))
        self.assertEqual(self.contents(self.model, self.prose, packed, result, other), before)
        self.assertFalse((self.folder / "o").exists())
        # A result may lie beside its model, and be replaced by the next.
        for _ in range(2):
            self.succeed("eval", self.model, *self.data, "-o", self.model / "result.json")

    def test_replaced_files_keep_links_and_permissions(self):
        (self.folder / "s").mkdir()
        target, link, private = self.folder / "s" / "r.json", self.folder / "l.json", self.folder / "p.json"
        target.write_text("old")
        link.symlink_to("s/r.json")
        private.write_text("old")
        private.chmod(0o600)
        shared, long = self.folder / "u.json", self.folder / ("n" * 250 + ".json")
        for out in (link, private, long):
            self.succeed("eval", self.model, *self.data, "-o", out)
        self.succeed("eval", self.model, *self.data, "-o", shared, preexec_fn=lambda: os.umask(0o002))
        self.assertTrue(link.is_symlink())
        for path in (target, private, long, shared):
            self.assertIn("datasets", read_json(path))
        self.assertEqual([oct(path.stat().st_mode & 0o777) for path in (private, shared)], ["0o600", "0o664"])

    def test_directories_behind_links_and_mount_points_are_filled(self):
        packed = self.compressed()
        (self.folder / "r").mkdir()
        for name, target in (("l", "r"), ("dangling", "new")):
            (self.folder / name).symlink_to(target)
            self.succeed("export", packed, self.folder / name)
            self.assertTrue((self.folder / name).is_symlink())
            self.assertTrue((self.folder / target / "config.json").exists())
        mounted = self.folder / "v"
        mounted.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", mounted], capture_output=True).returncode != 0:
            self.skipTest("a tmpfs cannot be mounted here")
        try:
            self.succeed("export", packed, mounted)
            self.assertEqual(sorted(p.name for p in mounted.iterdir()), sorted(p.name for p in (self.folder / "r").iterdir()))
            for path in mounted.iterdir():
                path.unlink()
            self.succeed("compress", self.model, mounted, *self.calib)
            self.assertTrue((mounted / "compression.json").exists())
        finally:
            subprocess.run(["umount", mounted], check=True)

    def test_two_processes_do_not_share_a_directory(self):
        out = self.folder / "o"
        slow = ["--calib", f"text={self.prose}", "--samples", "40", "--calib-seqlen", "1024", "--bits", "4", "--threads", "1"]
        self.prose.write_text(PROSE * 3000)
        commands = {"compress": ["compress", self.model, out, *slow], "run": ["run", self.slow_experiment()]}
        for name, command in commands.items():
            lock = out / ".work" / "lock" if name == "compress" else self.folder / "run" / ".lock"
            first = subprocess.Popen([MICA, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                while not lock.exists() and first.poll() is None:
                    time.sleep(0.01)
                self.fail_with(f"is being written by process {first.pid}", *command)
            finally:
                first.kill()
                first.wait()
            temporary = lock.parent / ".mica-tmp-1-2"
            temporary.write_text("of a dead process")
            (lock.parent / "status.json.tmp").mkdir()
            again = subprocess.Popen([MICA, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.5)
            again.send_signal(signal.SIGINT)
            self.assertNotIn("is being written", again.communicate(timeout=60)[1])
            self.assertFalse(temporary.exists())

    def slow_experiment(self):
        evaluate = {"data": [{"kind": "text", "path": "t.txt"}], "seqlen": 1024, "max_windows": 60}
        return self.experiment(evaluate=evaluate)

    def commands(self):
        """Every command with what it needs, quick ones."""
        packed, result = self.compressed("shown"), self.folder / "result.json"
        self.succeed("eval", self.model, *self.data, "-o", result)
        self.succeed("run", self.experiment())
        return [["--help"], ["--version"], ["eval", "--help"], ["inspect", self.model], ["inspect", self.model, "--json"],
                ["tokenize", self.model, self.prose], ["eval", self.model, *self.data], ["compress", self.model, packed, *self.calib],
                ["compress", self.model, packed, *self.calib, "--json"], ["compare", result, result], ["status", self.folder / "run"],
                ["run", self.folder / "experiment.json"], ["run", self.folder / "experiment.json", "--json"],
                ["export", packed, "EXPORT"], ["synthesize", "SYNTHESIZE"]]

    def test_stdout_that_cannot_be_written_is_one_line_and_exit_code_1(self):
        def gone():
            read, write = os.pipe()
            os.close(read)
            return write

        streams = {"full": lambda: os.open("/dev/full", os.O_WRONLY), "gone": gone, "closed": lambda: None}
        for number, command in enumerate(self.commands()):
            for name, make in streams.items():
                words = [str(self.folder / f"{word.lower()}-{number}-{name}") if word in ("EXPORT", "SYNTHESIZE") else word for word in map(str, command)]
                stream = make()
                done = subprocess.run([MICA, *words], stdout=stream if stream is not None else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                      timeout=120, preexec_fn=(lambda: os.close(1)) if stream is None else None)
                if stream is not None:
                    os.close(stream)
                self.assertEqual(done.returncode, 1, (words, name, done.stderr))
                self.assertEqual(done.stderr.count("mica: stdout: writing failed"), 1, (words, name, done.stderr))

    def test_files_are_written_though_stdout_cannot_be(self):
        text = PROSE.encode() * 60
        for name in ("full", "closed"):
            out, html = self.folder / f"{name}.json", self.folder / f"{name}.html"
            options = {"stdout": open("/dev/full", "w")} if name == "full" else {"preexec_fn": lambda: os.close(1)}
            done = subprocess.run([MICA, "eval", self.model, *self.data, "-o", out], stderr=subprocess.PIPE, **options)
            self.assertEqual((done.returncode, "datasets" in read_json(out)), (1, True), done.stderr)
            subprocess.run([MICA, "compare", out, out, "--html", html], stderr=subprocess.PIPE, **options)
            self.assertIn("</html>", html.read_text())
        self.assertEqual(self.prose.read_bytes(), text)

    def test_stdout_as_an_output(self):
        both = self.folder / "both"
        with open(both, "w") as file:
            done = subprocess.run([MICA, "eval", self.model, *self.data, "-o", "/dev/stdout"], stdout=file, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"datasets"', both.read_text())
        self.assertIn("peak memory", both.read_text())
        with open(both, "w") as file:
            done = subprocess.run([MICA, "eval", self.model, *self.data, "-o", both], stdout=file, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is the file that stdout goes to", done.stderr)

    def test_closed_standard_descriptors_are_no_place_for_data(self):
        for closed in ((0,), (1,), (2,), (0, 1, 2)):
            out = self.folder / f"closed{len(closed)}{closed[0]}"
            subprocess.run([MICA, "compress", self.model, out, *self.calib], capture_output=True,
                           preexec_fn=lambda: [os.close(descriptor) for descriptor in closed])
            shards = {p.name: p.read_bytes() for p in out.glob("*.safetensors")}
            if closed == (0,):
                expected = shards
            self.assertTrue(shards)
            self.assertEqual(shards, expected)

    ESCAPE = "\x1b]0;owned\x07\u202e\u009b"

    def test_text_of_files_does_nothing_to_the_terminal(self):
        weights = self.model / "model.safetensors"
        data = weights.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8:8 + length]), data[8 + length:]
        header[self.ESCAPE] = {"dtype": "F16", "shape": [1], "data_offsets": [len(body), len(body) + 2]}
        text = json.dumps(header).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + body + b"\0\0")
        result, status = self.folder / "a.json", self.folder / "status.json"
        result.write_text(json.dumps({"datasets": {self.ESCAPE: {"ppl": 5.0}}, "model": {"path": self.ESCAPE + "\n"}}))
        status.write_text(json.dumps({"pid": 1, "experiment": self.ESCAPE, "stage": self.ESCAPE, "phase": self.ESCAPE, "updated": self.ESCAPE}))
        broken = self.folder / f"b{self.ESCAPE}.json"
        broken.write_text("{")
        commands = [["inspect", self.model], ["inspect", self.model, "--json"], ["eval", self.model, *self.data], ["status", status],
                    ["status", status, "--json"], ["compare", broken, broken], ["eval", self.folder / self.ESCAPE, *self.data], [self.ESCAPE],
                    ["eval", self.model, *self.data, f"--{self.ESCAPE}"], ["eval", self.model, "--data", f"{self.ESCAPE}:text={self.prose}"]]
        commands += [["compare", result, result, "--format", form] for form in ("text", "json", "markdown", "html")]
        shown = 0
        for command in commands:
            done = mica(*command)
            for stream in (done.stdout, done.stderr):
                for character in set(self.ESCAPE) - set("]0;owned"):
                    self.assertNotIn(character, stream, command)
                shown += "owned" in stream
        self.assertGreaterEqual(shown, 8)
        for name, out in (("markdown", "r.md"), ("html", "r.html"), ("text", "r.txt")):
            self.succeed("compare", result, result, "--format", name, "-o", self.folder / out)
            self.assertNotIn("\x1b", (self.folder / out).read_text())

    def test_names_in_experiments_obey_the_rule_of_the_command_line(self):
        evaluate = {"data": [{"kind": "text", "path": "t.txt", "name": "\x1b[2Jw"}], "seqlen": 64, "max_windows": 2}
        self.fail_with("letters, digits, '_', '-' and '.'", "run", self.experiment(evaluate=evaluate))
        self.fail_with("letters, digits, '_', '-' and '.'", "run", self.experiment(name="\x1b]0;owned\x07"))
        self.assertFalse((self.folder / "run").exists())

    def on_terminal(self, *arguments, columns=60, **environment):
        """What mica writes to a stderr that is a terminal."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM", "COLUMNS")}
        process = subprocess.Popen([MICA, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=theirs, env=variables | environment)
        os.close(theirs)
        text = b""
        try:
            while block := os.read(ours, 65536):
                text += block
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        self.assertEqual(process.wait(timeout=120), 0)
        return text.decode()

    def test_stderr_respects_the_terminal(self):
        command = ["compress", self.model, "OUT", *self.calib]  # has progress and a warning

        def shown(name, *more, **options):
            return self.on_terminal(*[self.folder / name if word == "OUT" else word for word in command], *more, **options)

        full = shown("a", TERM="xterm")
        self.assertIn("\x1b[K", full)
        self.assertRegex(full, "\x1b\\[[0-9;]*m")  # a colour
        drawn = [line.split("\x1b[K")[-1] for line in full.replace("\r\n", "\n").split("\n") if "\x1b[K" in line and "%" in line]
        self.assertTrue(drawn)
        self.assertLess(max(map(len, drawn)), 60)
        self.assertGreater(max(len(line.split("\x1b[K")[-1]) for line in shown("b", TERM="xterm", columns=200).splitlines()), 60)
        self.assertNotRegex(shown("c", TERM="xterm", NO_COLOR="1"), "\x1b\\[[0-9;]*m")
        dumb = shown("d", TERM="dumb")
        self.assertNotIn("\x1b", dumb)
        self.assertIn("warning", dumb)
        self.assertEqual(shown("e", "--log-level", "error", TERM="xterm"), "")
        piped = mica("compress", self.model, self.folder / "f", *self.calib, env=os.environ | {"TERM": "xterm"})
        self.assertNotIn("\x1b", piped.stderr)
        self.assertEqual(mica("compress", self.model, self.folder / "g", *self.calib, "--log-level", "error").stderr, "")

    @unittest.skipIf(SANITIZED, "SKIP: a build with sanitizers")
    def test_little_memory_ends_in_a_line(self):
        endings = set()
        for megabytes in (60, 150, 250, 350, 400, 450, 500, 600, 700, 900, 1200):
            for threads in (1, 2):
                limit = megabytes << 20
                out = self.folder / f"o{megabytes}-{threads}"
                for command in (["eval", self.model, *self.data], ["compress", self.model, out, *self.calib]):
                    done = subprocess.run([MICA, *map(str, command), "--threads", str(threads)], capture_output=True, text=True, timeout=60,
                                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
                    if "error while loading shared libraries" in done.stderr:
                        continue
                    lines = [line for line in done.stderr.splitlines() if line.startswith("mica: ")]
                    self.assertIn((done.returncode, len(lines)), ((0, 0), (1, 1)), (megabytes, threads, command, done.stderr))
                    endings.add(done.returncode)
                    self.assertNotIn("BLAS", done.stderr)
                    self.assertNotIn("libgomp", done.stderr)
        self.assertEqual(endings, {0, 1})

    def test_paths_that_are_not_utf8(self):
        folder = os.fsencode(self.folder) + b"\xff\x1b"
        os.rename(self.folder, folder)
        self.folder = folder  # for tearDown
        command = lambda *words: subprocess.run([MICA, *words], capture_output=True, timeout=120)
        model, packed, result, text = (folder + name for name in (b"/m", b"/packed", b"/r\xfe.json", b"/t.txt"))
        data = [b"--data", b"text=" + text, *QUICK]
        for words in ([b"inspect", model, b"--json"], [b"eval", model, *data, b"--json", b"-o", result],
                      [b"compress", model, packed, b"--calib", b"text=" + text, *SMALL, b"--json"], [b"compare", result, result, b"--json"],
                      [b"export", packed, folder + b"/plain", b"--json"], [b"synthesize", folder + b"/s", b"--json"]):
            done = command(*words)
            self.assertEqual(done.returncode, 0, done.stderr)
            json.loads(done.stdout.decode("utf-8"))
        with open(result, encoding="utf-8") as file:
            json.load(file)
        for words in ([b"inspect", model], [b"eval", model, *data], [b"compare", result, result], [b"eval", folder + b"/absent", *data],
                      [b"compress", model, packed, b"--calib", b"text=" + text, *SMALL]):
            done = command(*words)
            for stream in (done.stdout, done.stderr):
                self.assertNotIn(b"\x1b", stream.decode("utf-8").encode())
        self.assertIn(b"\\xff\\x1b/absent: ", command(b"eval", folder + b"/absent", *data).stderr)

    def test_usage_is_one_line_of_our_own(self):
        for wrong, said in (([], "no command is given"), (["eval"], "model is missing"), (["eval", "m", "--threads"], "--threads is given without a value"),
                            (["eval", "m", "--bad"], "--bad"), (["compare", "a", "b", "c"], "c"), (["nonsense"], "nonsense")):
            done = mica(*wrong)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("mica: "))
            self.assertIn(said, done.stderr)
            self.assertIn("--help'", done.stderr)

    def test_errors_of_the_file_system_are_lines_of_our_own(self):
        long = self.folder / ("n" * 300)
        circle = self.folder / "circle"
        circle.symlink_to(circle)
        for command in (["inspect", long], ["inspect", circle], ["eval", long, *self.data], ["compress", self.model, long, *self.calib],
                        ["compress", self.model, circle, *self.calib], ["export", self.model / "x" / "y", long], ["status", long],
                        ["synthesize", circle], ["synthesize", self.prose / "below"]):
            done = mica(*command)
            self.assertEqual(done.returncode, 1, (command, done.stderr))
            lines = [line for line in done.stderr.splitlines() if line.startswith("mica: ")]
            self.assertEqual(len(lines), 1, done.stderr)
            for raw in ("filesystem error", "cannot get", "internal error", "json.exception"):
                self.assertNotIn(raw, done.stderr)


if __name__ == "__main__":
    main()
