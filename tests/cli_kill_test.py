"""The short form of tools/kill_and_resume.py: what is killed and repeated ends in the same bytes."""
import sys

from program import MICA, SOURCE, ProgramTest, main

sys.path.insert(0, str(SOURCE / "tools"))
import kill_and_resume  # noqa: E402


class KillTest(ProgramTest):
    def test_killed_runs_end_in_the_same(self):
        lines = []
        self.assertEqual(kill_and_resume.check(MICA, 4, 7, lines.append), 0, lines)


if __name__ == "__main__":
    main()
