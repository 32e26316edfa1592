"""mica chat on the demo checkpoint with a template of our own: turns, what a template refuses, a checkpoint without one."""
import json
import shutil
import unittest

from program import DEMO, ProgramTest, mica

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


if __name__ == "__main__":
    unittest.main()
