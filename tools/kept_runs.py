"""What the tables share: programs that are run, and results that stay, so that a table that was stopped goes on."""
import json
import pathlib
import subprocess
import threading
import time


def run(command):
    subprocess.run([str(argument) for argument in command], check=True, stdout=subprocess.DEVNULL)


def kept_json(path, make):
    """The JSON of a file; make() gives its text where it is not there yet."""
    path = pathlib.Path(path)
    if not path.exists():
        text = make()
        unfinished = path.with_name(path.name + ".new")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(path)
    return json.loads(path.read_text(encoding="utf-8"))


class AnonymousMemory(threading.Thread):
    """The most memory of its own that a process has while it runs, without what it maps of files; looked at every 10 ms."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.most, self.going = pathlib.Path(f"/proc/{pid}/status"), 0, True

    def run(self):
        while self.going:
            try:
                lines = self.status.read_text(encoding="utf-8").splitlines()
            except OSError:
                return
            self.most = max([self.most, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))])
            time.sleep(0.01)


def run_watched(command, environment=None):
    """stdout of a program, and the most anonymous memory that it had."""
    with subprocess.Popen([str(argument) for argument in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        memory = AnonymousMemory(process.pid)
        memory.start()
        out, said = process.communicate()
        memory.going = False
        memory.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {said[-2000:]}")
    return out, memory.most
