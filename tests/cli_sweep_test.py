"""mica sweep from the outside: points, what they share, what is kept, kills, the documents and the page in a browser."""
import html.parser
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest

import browser
from program import MICA, ProgramTest, main, mica, read_json, same_bytes


class SweepTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.succeed("synthesize", self.folder / "model", "--tokenizer", self.tokenizer, "--layers", 2, "--hidden", 256, "--ffn", 384, "--heads", 4)
        self.text("calib.txt", ("dictionary",))
        self.text("eval.txt", ("database",))
        self.out = self.folder / "out"

    def sweep(self, sweep, **changes):
        return self.experiment(**{"evaluate__divergence": True, "sweep": sweep, "compress__budget": {"kind": "bpw", "value": 4}, **changes})

    def test_points_are_those_of_a_run(self):
        experiment = self.sweep({"budget": {"kind": "bpw", "value": [3, 4, 5]}, "keep": "all"})
        written = experiment.read_text()
        printed = self.succeed("sweep", experiment)
        result = read_json(self.out / "sweep.json")
        self.assertEqual([point["name"] for point in result["points"]], ["bpw-3", "bpw-4", "bpw-5"])
        # What a single run makes of the same point: the same bytes, the same figures.
        single = self.experiment(evaluate__divergence=True, directory="single", compress__budget={"kind": "bpw", "value": 4})
        self.succeed("run", single)
        experiment.write_text(written)  # of the same name
        self.assertEqual(same_bytes(self.folder / "single" / "packed", self.out / "bpw-4" / "packed"), [])
        point = result["points"][1]
        compared = read_json(self.folder / "single" / "comparison.json")["datasets"]["docs"]
        self.assertEqual(point["datasets"]["docs"]["kl"], compared["divergence"]["kl"])
        self.assertEqual(point["kl"], compared["divergence"]["kl"])
        self.assertEqual(point["excess_nats"], compared["excess_nats"])
        self.assertEqual(point["retention_percent"], compared["retention_percent"])
        packed = read_json(self.out / "bpw-4" / "packed" / "compression.json")
        self.assertEqual(point["bytes"], packed["file"]["bytes_after"])
        self.assertEqual(point["bits_per_weight"], packed["bits"]["bits_per_weight"])
        self.assertEqual(set(point["bits_by_type"]), set(packed["layers"][0]["linears"]))
        for label in ("bpw 3", "bpw 5", "KL divergence against bytes of the weight files"):
            self.assertIn(label, printed)
        # Statistics and baseline were measured once.
        self.assertEqual(len(list(self.out.glob("statistics-*.safetensors"))), 1)
        measured = [name for name in ("bpw-3", "bpw-4", "bpw-5")
                    if "calibrate" in read_json(self.out / name / "packed" / "compression.json")["time"]]
        self.assertEqual(measured, ["bpw-3"])
        self.assertEqual(len(list(self.out.rglob("baseline.json"))), 1)
        # mica status knows it; a second call finds everything done.
        status = json.loads(self.succeed("status", self.out, "--json"))
        self.assertEqual((status["state"], status["sweep"]["finished"], status["sweep"]["points"]), ("done", 3, 3))
        self.assertIn("all 3 points", self.succeed("status", self.out))
        before = (self.out / "bpw-5" / "packed" / "compression.json").stat().st_mtime_ns
        self.assertEqual(json.loads(self.succeed("sweep", experiment, "--json"))["points"], result["points"])
        self.assertEqual((self.out / "bpw-5" / "packed" / "compression.json").stat().st_mtime_ns, before)

    def test_kinds_of_statistics(self):
        self.succeed("sweep", self.sweep({"points": [{"budget": {"kind": "bits", "value": 4}}, {"samples": 3}, {"coding": "entropy"},
                                                     {"coding": "entropy", "budget": {"kind": "bpw", "value": 3}}], "keep": "none"}))
        self.assertEqual(len(list(self.out.glob("statistics-*.safetensors"))), 3)
        self.assertEqual(list(self.out.glob("*/packed")), [])

    def test_front_and_seeds(self):
        experiment = self.sweep({"points": [{"coding": coding, "budget": {"kind": "bpw", "value": bits}, "sparsity": zeros, "seed": seed}
                                            for coding, bits, zeros in (("entropy", 3, 0), ("fixed", 3.2, 0.7), ("entropy", 4, 0), ("fixed", 5, 0)) for seed in (0, 1)]})
        self.succeed("sweep", experiment)
        result = read_json(self.out / "sweep.json")
        self.assertEqual(len(result["points"]), 8)
        self.assertEqual(len(result["settings"]), 4)
        by_name = {point["name"]: point for point in result["points"]}
        for setting in result["settings"]:
            members = [by_name[name] for name in setting["points"]]
            self.assertEqual(len(members), 2)
            self.assertEqual({member["settings"]["seed"] for member in members}, {0, 1})
            kl = [member["kl"] for member in members]
            self.assertAlmostEqual(setting["mean"]["kl"], sum(kl) / 2, 12)
            self.assertAlmostEqual(setting["deviation"]["kl"], abs(kl[0] - kl[1]) / math.sqrt(2), 12)
            beaten = any(other["mean"]["bytes"] <= setting["mean"]["bytes"] and other["mean"]["kl"] <= setting["mean"]["kl"]
                         and other is not setting for other in result["settings"])
            self.assertEqual(setting["front"], not beaten)
        self.assertIn(False, [setting["front"] for setting in result["settings"]])  # most weights pruned at 3.2 bits are larger and worse than 3 bits without zeros
        for point in result["points"]:
            self.assertEqual((self.out / point["name"] / "packed").exists(), point["front"], point["name"])
            self.assertEqual(point["packed"], point["front"])
            self.assertTrue((self.out / point["name"] / "comparison.md").exists())
        # What is gone is not made again; what is asked for anew is.
        self.assertEqual(json.loads(self.succeed("sweep", experiment, "--json")), result)
        content = read_json(experiment)
        content["sweep"]["keep"] = "all"
        experiment.write_text(json.dumps(content))
        again = json.loads(self.succeed("sweep", experiment, "--json"))
        self.assertTrue(all(point["packed"] for point in again["points"]))
        self.assertEqual([point["kl"] for point in again["points"]], [point["kl"] for point in result["points"]])
        # Points of something else are refused, also where their files are gone.
        content["sweep"]["keep"] = "none"
        experiment.write_text(json.dumps(content))
        self.succeed("sweep", experiment)
        content["compress"]["damping"] = 0.1
        experiment.write_text(json.dumps(content))
        self.fail_with("--damping 0.03 against 0.1", "sweep", experiment)

    def test_a_killed_sweep_ends_in_the_same_bytes(self):
        experiment = self.sweep({"budget": {"kind": "bpw", "value": [3, 3.4, 4]}, "keep": "all", "coding": ["entropy"]})
        began = time.monotonic()
        self.succeed("sweep", experiment)
        seconds = time.monotonic() - began
        whole = self.folder / "whole"
        self.out.rename(whole)
        random.seed(5)
        stops = 0
        while stops < 6:
            process = subprocess.Popen([MICA, "sweep", str(experiment), "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(timeout=random.uniform(0.05, 0.6) * seconds)
                if stops > 0:
                    break
                shutil.rmtree(self.out)  # it was faster this time
                seconds /= 2
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL if stops % 2 else signal.SIGINT)
                process.wait()
                stops += 1
        self.succeed("sweep", experiment)
        for name in ("bpw-3", "bpw-3.4", "bpw-4"):
            name += "-coding-entropy"
            self.assertEqual(same_bytes(whole / name / "packed", self.out / name / "packed"), [], name)
        figures = [[{key: point[key] for key in ("name", "bytes", "kl", "front")} for point in read_json(place / "sweep.json")["points"]]
                   for place in (whole, self.out)]
        self.assertEqual(figures[0], figures[1])

    def test_faults(self):
        axis = {"budget": {"kind": "bpw", "value": [3, 4]}}
        for expected, sweep in (("did you mean \"budget\"", {"bugdet": [3]}), ("is 1, expected", {"budget": {"kind": "bpw", "value": [4, 1]}}),
                                ("does not exist", {**axis, "others": ["none.gguf"]})):
            self.fail_with(expected, "sweep", self.sweep(sweep))
            self.assertFalse(self.out.exists())
        self.fail_with("has no \"sweep\"", "sweep", self.experiment())
        for command in ("run", "ablate"):
            self.fail_with("run it with mica sweep", command, self.sweep(axis))
        self.fail_with("run it with mica sweep", "run", self.sweep(axis), "--check")
        self.fail_with("is calibration text and evaluation text", "sweep",
                       self.sweep({"points": [{"calib": [{"kind": "text", "path": "eval.txt"}]}]}))

    def check(self, experiment, code=0):
        """Checks as text and as JSON; nothing is written. Returns the lines by their names and the stages."""
        there = sorted(self.folder.rglob("*"))
        shown = mica("sweep", experiment, "--check")
        done = mica("sweep", experiment, "--check", "--json")
        self.assertEqual(sorted(self.folder.rglob("*")), there)
        self.assertEqual((shown.returncode, done.returncode), (code, code), shown.stdout + shown.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["ok"], code == 0)
        for line in result["checks"]:
            self.assertRegex(shown.stdout, rf"(?m)^{line['state']} +{re.escape(line['check'])} ")
        # Of lines of one name, such as calibration texts, one that is wrong.
        lines = sorted(result["checks"], key=lambda line: line["state"] == "WRONG")
        return {line["check"]: (line["state"], line["text"]) for line in lines}, {one["stage"]: one["text"] for one in result["stages"]}

    def test_check(self):
        experiment = self.sweep({"budget": {"kind": "bpw", "value": [3, 4]}, "samples": [4, 6], "keep": "none"})
        points = [f"point bpw-{bits}-samples-{samples}" for bits in (3, 4) for samples in (4, 6)]
        lines, stages = self.check(experiment)
        self.assertEqual({state for state, _ in lines.values()}, {"ok"})
        self.assertEqual(lines["sweep"][1], "4 points, 0 files of other programs")
        for point in points:
            self.assertIn("can be met", lines[point][1])
        self.assertEqual(lines["calibration"][1], "4, 6 windows")
        self.assertIn("enough for 4 windows of 64, enough for 6 windows of 64", lines["calibration text"][1])
        self.assertEqual(stages, dict.fromkeys(("baseline", *points, "report"), "to do"))
        for check in ("texts differ", "memory, measuring", "memory, compressing", "disk", "directory", "text docs"):
            self.assertIn(check, lines)
        self.succeed("sweep", experiment)
        lines, stages = self.check(experiment)
        self.assertEqual(set(stages.values()), {"finished before"})
        self.assertEqual(lines["kept bpw-3-samples-4/compressed.json"][0], "ok")
        # The last point is measured, and was killed before it was compressed in another sweep.
        shutil.rmtree(self.out / "bpw-4-samples-6")
        self.assertEqual(self.check(experiment)[1]["point bpw-4-samples-6"], "to do")

    def test_check_finds_each_fault(self):
        for check, expected, changes in (
                ("point bpw-0.2", "--bpw is 0.2", {"sweep": {"budget": {"kind": "bpw", "value": [0.2, 4]}}}),
                ("point bpw-0.2", "point bpw-0.2", {"sweep": {"points": [{"budget": {"kind": "bpw", "value": 0.2}}]}}),
                ("point kl-0.1", "needs \"divergence\": true", {"sweep": {"budget": {"kind": "kl", "value": [0.1]}}, "evaluate__divergence": False}),
                ("calibration", "--samples is 1, expected at least 2", {"sweep": {"samples": [1, 4]}, "compress__calib": [{"path": "calib.txt"}, {"path": "eval.txt"}]}),
                ("calibration text", "none.txt: is missing", {"sweep": {"points": [{"calib": [{"kind": "text", "path": "none.txt"}]}, {"seed": 1}]}}),
                ("texts differ", "eval.txt: is calibration text", {"sweep": {"points": [{"calib": [{"kind": "text", "path": "eval.txt"}]}, {"seed": 1}]}}),
                ("memory, compressing", "use fewer", {"sweep": {"samples": [4, 16000000]}}),
                ("text docs", "eval2.txt: is missing", {"sweep": {"seed": [1]}, "evaluate__data": [{"kind": "text", "name": "docs", "path": "eval2.txt"}]}),
                ("sweep", "unknown key \"bugdet\" (did you mean \"budget\"?)", {"sweep": {"bugdet": [3]}}),
                ("sweep", "\"seed\": is empty", {"sweep": {"seed": []}}),
                ("sweep", "has no points", {"sweep": {}}),
                ("sweep", "has no points", {"sweep": {"points": []}}),
                ("sweep", "expected \"from\" below \"to\"", {"sweep": {"budget": {"kind": "bpw", "value": {"from": 4, "to": 3, "points": 2}}}}),
                ("sweep", "\"points\" is 0, expected 2 to", {"sweep": {"budget": {"kind": "bpw", "value": {"from": 3, "to": 4, "points": 0}}}}),
                ("sweep", "\"points\" is 1, expected 2 to", {"sweep": {"budget": {"kind": "bpw", "value": {"from": 3, "to": 4, "points": 1}}}}),
                ("sweep", "\"bpw\" is 20", {"sweep": {"budget": {"kind": "bpw", "value": [3, 20]}}}),
                ("sweep", "\"sparsity\" is 1.5", {"sweep": {"sparsity": [0, 1.5]}}),
                ("sweep", "has {\"seed\":1} twice", {"sweep": {"points": [{"seed": 1}, {"seed": 2}, {"seed": 1}]}}),
                ("sweep", "none.gguf does not exist", {"sweep": {"seed": [1], "others": ["none.gguf"]}})):
            with self.subTest(expected=expected):
                changes = dict(changes)
                experiment = self.sweep(changes.pop("sweep"), **changes)
                lines, _ = self.check(experiment, code=1)
                self.assertEqual(lines[check][0], "WRONG")
                self.assertIn(expected, lines[check][1])
                self.fail_with("checks failed", "sweep", experiment, "--check")
                if check != "memory, compressing":  # what the check calls wrong is refused in one line
                    self.fail_with("", "sweep", experiment)
                self.assertFalse((self.out / "baseline.json").exists())
                shutil.rmtree(self.out, ignore_errors=True)
        self.fail_with("checks failed", "sweep", self.experiment(), "--check")

    def test_files_of_other_programs(self):
        self.succeed("compress", self.folder / "model", self.folder / "x.gguf", "--coding", "gguf", "--bpw", 6, "--samples", 4,
                     "--seqlen", 64, "--calib", f"text={self.folder / 'calib.txt'}")
        (self.folder / "x.gguf.json").unlink()  # as of another program
        (self.folder / "r.json").write_text(json.dumps({"docs": {"ppl": 40000}}))
        self.succeed("sweep", self.sweep({"budget": {"kind": "bpw", "value": [3, 5]},
                                          "others": ["x.gguf", {"path": "r.json", "name": "another <b>", "bytes": 300000, "bits_per_weight": 4}]}))
        others = read_json(self.out / "sweep.json")["others"]
        self.assertEqual([other["name"] for other in others], ["x", "another <b>"])
        self.assertEqual(others[0]["bytes"], (self.folder / "x.gguf").stat().st_size)
        self.assertGreater(others[0]["kl"], 0)
        self.assertAlmostEqual(others[0]["bits_per_weight"], 6, delta=0.6)
        self.assertEqual((others[1]["bytes"], others[1]["bits_per_weight"]), (300000, 4))
        page = (self.out / "sweep.html").read_text()
        self.assertIn("another &lt;b&gt;", page)
        self.assertNotIn("<b>", page)


class PageTest(SweepTest):
    test_points_are_those_of_a_run = test_kinds_of_statistics = test_front_and_seeds = None
    test_a_killed_sweep_ends_in_the_same_bytes = test_faults = test_files_of_other_programs = None
    test_check = test_check_finds_each_fault = None

    def setUp(self):
        super().setUp()
        self.succeed("sweep", self.sweep({"coding": ["fixed", "entropy"], "budget": {"kind": "bpw", "value": [3, 4, 5]}}))
        self.page = self.out / "sweep.html"

    def test_every_tag_is_closed_and_nothing_comes_from_outside(self):
        class Reader(html.parser.HTMLParser):
            open_tags, faults = [], []

            def handle_starttag(self, tag, attributes):
                if tag not in ("meta", "circle", "rect", "line", "polyline", "polygon"):
                    self.open_tags.append(tag)
                for name, value in attributes:
                    if name in ("src", "href") or "url(" in (value or ""):
                        self.faults.append((tag, name, value))

            def handle_startendtag(self, tag, attributes):
                self.handle_starttag(tag, attributes)
                if self.open_tags and self.open_tags[-1] == tag:
                    self.open_tags.pop()

            def handle_endtag(self, tag):
                if not self.open_tags or self.open_tags.pop() != tag:
                    self.faults.append(("end of", tag))

        for page in (self.page, self.out / "sweep.zh.html"):
            reader = Reader()
            reader.feed(page.read_text())
            self.assertEqual(reader.faults, [])
            self.assertEqual(reader.open_tags, [])
            self.assertNotIn("<script", page.read_text())
        for document in ("sweep.txt", "sweep.md", "sweep.zh.txt", "sweep.zh.md"):
            self.assertIn("coding entropy", (self.out / document).read_text())

    def test_points_stand_where_their_figures_are(self):
        """The vertical places of a logarithmic axis: ln(KL) is linear in them."""
        page = self.page.read_text()
        svg = page[page.index("<svg class=\"plot\""):page.index("</svg>")]
        found = {}
        for label, shape in re.findall(r'<g class="point"[^>]*aria-label="([^"]*?): [^"]*">(<(?:circle|polygon)[^>]*>)', svg):
            if circle := re.search(r'cx="([\d.]+)" cy="([\d.]+)"', shape):
                found[label] = float(circle[1]), float(circle[2])
            else:
                corners = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]*)"', shape)[1].split()]
                found[label] = tuple((max(c[i] for c in corners) + min(c[i] for c in corners)) / 2 for i in (0, 1))
        settings = {one["setting"]: one["mean"] for one in read_json(self.out / "sweep.json")["settings"]}
        self.assertEqual(set(found), set(settings))
        first, *others = sorted(settings, key=lambda name: settings[name]["bytes"])
        last = others[-1]
        for name in others[:-1]:
            for axis, value in ((0, lambda s: s["bytes"]), (1, lambda s: math.log(s["kl"]))):
                ends = value(settings[first]), value(settings[last])
                share = (value(settings[name]) - ends[0]) / (ends[1] - ends[0])
                place = found[first][axis] + share * (found[last][axis] - found[first][axis])
                self.assertAlmostEqual(found[name][axis], place, delta=0.6, msg=name)

    LAYOUT = """(() => {
      const out = {boxes: [], outside: []};
      for (const svg of document.querySelectorAll('.plot')) {
        const r = svg.getBoundingClientRect();
        out.boxes.push([r.left, r.width, r.height]);
        for (const t of svg.querySelectorAll('text:not(.tip)')) {
          const b = t.getBoundingClientRect();
          if (b.left < r.left - 1 || b.right > r.right + 1 || b.top < r.top - 1 || b.bottom > r.bottom + 1) out.outside.push(t.textContent);
        }
      }
      out.points = document.querySelectorAll('.plot .point').length;
      out.seen = [...document.querySelectorAll('.tip')].filter(t => getComputedStyle(t).visibility === 'visible').length;
      out.overflow = document.documentElement.scrollWidth > document.documentElement.clientWidth;
      out.paper = getComputedStyle(document.body).backgroundColor;
      out.mark = getComputedStyle(document.querySelector('.point .mark')).fill;
      return out;
    })()"""
    FOCUSED = """(() => {
      const point = document.activeElement.closest('.plot .point');
      return point && [[...document.querySelectorAll('.plot .point')].indexOf(point), getComputedStyle(point.querySelector('.tip')).visibility];
    })()"""

    @unittest.skipIf(browser.PROGRAM is None, "no Chromium here")
    def test_in_a_browser(self):
        """Laid out without overlaps of the frame in light, dark and narrow windows; every point's figures come with the Tab key; printed."""
        colours = {}
        with browser.Browser(self.folder / "browser") as window:
            for mode, options in (("light", {}), ("dark", {"scheme": "dark"}), ("narrow", {"width": 420})):
                window.open(self.page, **options)
                found = window.evaluate(self.LAYOUT)
                self.assertGreater(found["points"], 0)
                self.assertEqual((found["seen"], found["outside"], found["overflow"]), (0, [], False), mode)
                self.assertTrue(all(width > 200 and height > 100 for _, width, height in found["boxes"]), found["boxes"])
                colours[mode] = found["paper"], found["mark"]
                reached = []
                for _ in range(found["points"]):
                    window.press("Tab")
                    reached.append(window.evaluate(self.FOCUSED))
                self.assertEqual(reached, [[i, "visible"] for i in range(found["points"])], mode)
                window.press("Tab")
                self.assertIsNone(window.evaluate(self.FOCUSED))
                self.assertEqual(window.evaluate(self.LAYOUT)["seen"], 0)
            self.assertEqual(colours["light"], colours["narrow"])
            self.assertEqual(colours["light"][0], "rgb(255, 255, 255)")
            self.assertNotEqual(colours["light"][0], colours["dark"][0])
            self.assertNotEqual(colours["light"][1], colours["dark"][1])
            self.assertGreater(len(window.screenshot()), 20000)
            self.assertEqual(window.printed()[:5], b"%PDF-")


if __name__ == "__main__":
    main()
