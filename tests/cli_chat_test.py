"""mica chat on the demo checkpoint with a template of our own: turns, what a template refuses, a checkpoint without one."""
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
import unittest

from program import DEMO, MICA, ProgramTest, mica

TEMPLATE = ("{{ bos_token }}{% for message in messages %}{% if message.role == 'other' %}{{ raise_exception('no others') }}{% endif %}"
            "{{ message.role }}: {{ message.content | trim }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}")


class ChatTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        shutil.copytree(DEMO, self.model)
        config = json.loads((self.model / "tokenizer_config.json").read_text())
        config["chat_template"] = TEMPLATE
        (self.model / "tokenizer_config.json").write_text(json.dumps(config))

    def chat(self, text, *arguments):
        done = mica("chat", self.model, "--device", "cpu", "--max-tokens", "12", *arguments, input=text)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_an_answer_is_the_continuation_of_the_rendered_text(self):
        answer = self.chat("Hello there\n").stdout
        told = json.loads(self.succeed("generate", self.model, "--special-tokens", "--prompt", "<s>user: Hello there\nassistant:", "--device", "cpu",
                                       "--max-tokens", "12", "--json", "--log-level", "error"))
        self.assertEqual(answer.rstrip("\n"), told["text"].rstrip("\n"))

    def test_a_second_turn_reads_what_is_new_alone(self):
        done = self.chat("Hello there\nAnd then?\n", "--system", "Be brief.")
        self.assertEqual(done.stderr.count("first token after"), 2)
        self.assertRegex(done.stderr, r"\(\d+ known\)")

    def test_a_checkpoint_without_a_template_is_refused(self):
        self.fail_with("chat template", "chat", DEMO, "--device", "cpu", input="Hello\n")

    def test_a_template_that_is_wrong_is_refused_by_line(self):
        (self.model / "chat_template.jinja").write_text("line\n{% unknown %}")
        self.fail_with("line 2", "chat", self.model, "--device", "cpu", input="Hello\n")


class Typist:
    """mica chat in a terminal of its own."""

    def __init__(self, *arguments, **options):
        self.shown = b""
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([MICA, "chat", *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        env=dict(os.environ, TERM="xterm", HOME="/nonexistent", LC_ALL="C"), **options)
        os.close(slave)

    def read(self):
        """What came within a tenth of a second; False once the program has ended."""
        if select.select([self.master], [], [], 0.1)[0]:
            try:
                self.shown += os.read(self.master, 1 << 16)
            except OSError:
                return False
        return True

    def prompt(self, times=1, seconds=120, behind=b""):
        """Waits until so many prompts more have been shown, behind the first of these bytes; what was shown since the last call."""
        end = time.monotonic() + seconds
        while behind not in self.shown or self.shown[self.shown.index(behind):].count(b"> ") < times:
            if not self.read() or time.monotonic() > end:
                raise AssertionError(f"no prompt in {self.shown!r}")
        while select.select([self.master], [], [], 0.3)[0]:
            self.read()
        shown, self.shown = self.shown, b""
        return shown.decode()

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, seconds=60):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        self.process.kill()
        os.close(self.master)
        return self.process.wait()


class TerminalTest(ChatTest):
    """Messages typed in a terminal: the same answers as from a pipe."""
    test_an_answer_is_the_continuation_of_the_rendered_text = test_a_second_turn_reads_what_is_new_alone = None
    test_a_checkpoint_without_a_template_is_refused = test_a_template_that_is_wrong_is_refused_by_line = None

    def setUp(self):
        super().setUp()
        self.typist = Typist(self.model, "--device", "cpu", "--max-tokens", "12", "--log-level", "error")
        self.typist.prompt()

    def tearDown(self):
        if self.typist.process.poll() is None:
            self.typist.end(0)
        super().tearDown()

    def say(self, keys):
        """The answer in the terminal to what these keys make."""
        self.typist.type(keys + "\r")
        shown = self.typist.prompt(behind=b"\n").replace("\r", "")  # while a line is edited it is shown anew with its prompt
        return shown[shown.index("\n") + 1:shown.rindex("> ")].rstrip("\n")

    def told(self, *messages):
        """The answer to the last of several messages from a pipe."""
        before, whole = (self.chat("".join(message + "\n" for message in part), "--log-level", "error").stdout for part in (messages[:-1], messages))
        return whole[len(before):].rstrip("\n")

    def test_lines_are_edited_and_come_back(self):
        left, up, erase = "\x1b[D", "\x1b[A", "\x7f"
        self.assertEqual(self.say("Helo there" + 7 * left + "l"), self.told("Hello there"))
        self.assertEqual(self.say("Zwei große ÄÖ" + 2 * erase + "Ü"), self.told("Hello there", "Zwei große Ü"))
        self.assertEqual(self.say(2 * up), self.told("Hello there", "Zwei große Ü", "Hello there"))
        self.typist.type("\x04")
        self.assertEqual(self.typist.end(), 0)

    def test_an_interrupt_drops_the_line(self):
        self.typist.type("Not this")
        time.sleep(0.5)
        self.typist.process.send_signal(signal.SIGINT)
        self.assertIn("Ctrl-D", self.typist.prompt())
        self.typist.process.send_signal(signal.SIGINT)  # and an empty one
        self.typist.prompt()
        self.assertEqual(self.say("Hello there"), self.told("Hello there"))
        self.typist.process.terminate()
        self.assertEqual(self.typist.end(), 130)

    def test_an_interrupt_ends_the_answer_alone(self):
        self.typist.end(0)
        self.typist = Typist(self.model, "--device", "cpu", "--max-tokens", "400", "--temperature", "1")
        self.typist.prompt()
        self.typist.type("Hello there\r")
        while len(self.typist.shown) < 60:
            self.typist.read()
        self.typist.process.send_signal(signal.SIGINT)
        self.assertIn("interrupted", self.typist.prompt())
        self.typist.type("\x04")
        self.assertEqual(self.typist.end(), 0)


if __name__ == "__main__":
    unittest.main()
