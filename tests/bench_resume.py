#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A benchmark's report that is made in several calls: what each measures, what it leaves, in which order. The program that
is measured is a stand-in, which prints numbers at once and notes how it was called.

usage: bench_resume.py SOURCE_ROOT
"""
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))
sys.path.insert(0, str(ROOT / "bench"))

import resume  # noqa: E402
import sources  # noqa: E402
from rows import ROWS  # noqa: E402

STAND_IN = """#!/usr/bin/env python3
import pathlib, sys, time
folder = pathlib.Path(__file__).parent
with open(folder / "calls", "a") as calls:
    row = next((word.partition("=")[2] for word in sys.argv if word.startswith("group=")), sys.argv[1])
    calls.write(row + "\\n")
if (folder / f"{row} fails").exists():
    sys.exit("it broke")
if (folder / f"{row} hangs").exists():
    time.sleep(60)
print('{"case": "a case", "value": 2.0, "unit": "ms"}')
"""
BY_NAME = {row.name: row for row in ROWS}


class Calls(unittest.TestCase):
    """Rows whose peers are not asked: machine/1 (1 s a run by its kind), optimizers/1 (5 s), overhead/1 (6 s)."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.build, self.out = pathlib.Path(scratch.name) / "build", pathlib.Path(scratch.name) / "out"
        self.bench = self.build / "bench"
        self.bench.mkdir(parents=True)
        (self.build / "CMakeCache.txt").write_text("CMAKE_BUILD_TYPE:STRING=Release\n", encoding="utf-8")
        self.build_of("1", "one")
        (self.bench / "loom_bench").write_text(STAND_IN, encoding="utf-8")
        (self.bench / "loom_bench").chmod(0o755)

    def call(self, *arguments, **variables):
        """The rows that were run, and the last line. What else runs on this machine is nobody's business here."""
        (self.bench / "calls").unlink(missing_ok=True)
        done = subprocess.run([sys.executable, ROOT / "bench/report.py", "--build", self.build, "--out", self.out, "--runs", "2",
                               "--busy", "inf", *map(str, arguments)], check=False, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "LOOM_CPU": "", **variables})
        self.code = done.returncode
        self.assertIn("bench: ", done.stderr)
        calls = self.bench / "calls"
        return calls.read_text(encoding="utf-8").split() if calls.exists() else [], done.stderr.splitlines()[-1]

    def build_of(self, programs, commit="two"):
        (self.build / sources.RECORD).write_text(json.dumps({"loom": commit, "programs": programs}), encoding="utf-8")

    def report(self):
        found, = self.out.glob("*.json")
        return json.loads(found.read_text(encoding="utf-8"))

    def test_a_second_call_measures_what_the_first_one_left(self):
        rows = ["machine/1", "overhead/1", "optimizers/1"]
        ran, last = self.call("--resume", "--seconds", 100, *rows)
        self.assertEqual(ran, ["machine"] * 2 + ["optimizers"] * 2 + ["overhead"] * 2)
        self.assertEqual(last, "bench: nothing is left")
        self.assertEqual(self.call("--resume", *rows), ([], last))
        self.build_of("2")
        ran, last = self.call("--resume", "--seconds", 0.1, *rows)
        self.assertEqual(ran, [])
        self.assertEqual(self.report()["left"], ["machine/1", "optimizers/1", "overhead/1"])

    def test_a_shorter_row_fits_where_a_longer_one_does_not(self):
        ran, last = self.call("--resume", "--seconds", 9.9, "overhead/1", "machine/1")
        self.assertEqual(ran, ["machine"] * 2)
        self.assertEqual(last, "bench: left: 1 rows, about 12 s; to go on: scripts/bench; longer than --seconds 10: "
                               "overhead/1 about 12 s; these: overhead/1")
        self.assertEqual((self.report()["left"], list(self.report()["rows"])), (["overhead/1"], ["machine/1"]))
        ran, last = self.call("--resume", "--seconds", 100, "overhead/1", "machine/1")
        self.assertEqual((ran, last, self.report()["left"]), (["overhead"] * 2, "bench: nothing is left", []))

    def test_other_rows_that_are_left_stay_so(self):
        self.call("--resume", "--seconds", 1, "machine/1", "overhead")
        self.assertEqual(self.report()["left"], ["machine/1", "overhead/1"])
        self.call("--resume", "machine/1")
        self.assertEqual(self.report()["left"], ["overhead/1"])

    def test_without_resume_everything_is_measured_again(self):
        self.call("--write", "machine/1")
        self.assertEqual(self.call("--write", "machine/1")[0], ["machine"] * 2)

    def test_other_programs_settings_and_fewer_runs_are_measured_again(self):
        self.call("--resume", "machine/1")
        self.assertEqual(self.call("--resume", "machine/1")[0], [])
        self.assertEqual(self.call("--resume", "--runs", 1, "machine/1")[0], [])
        self.assertEqual(self.call("--resume", "--runs", 3, "machine/1")[0], ["machine"] * 3)
        self.assertEqual(self.call("--resume", "machine/1", LOOM_CPU="portable")[0], ["machine"] * 2)
        self.build_of("2")
        self.assertEqual(self.call("--resume", "machine/1", LOOM_CPU="portable")[0], ["machine"] * 2)
        self.assertEqual(self.report()["rows"]["machine/1"]["loom"], "two")

    def test_another_commit_of_the_same_sources_is_not(self):
        self.call("--resume", "machine/1")
        self.build_of("1")
        self.assertEqual(self.call("--resume", "machine/1")[0], [])
        self.assertEqual(self.report()["rows"]["machine/1"]["loom"], "one")
        self.assertIn("Loom one)", next(self.out.glob("*.md")).read_text(encoding="utf-8"))

    def test_its_head_says_what_was_used(self):
        self.call("--resume", "--gpu", "gpu/machine")
        self.assertEqual(set(self.report()["machine"]) & {"mpi", "torch_memory", "other_peers", "gpu"}, {"gpu"})

    def test_it_goes_on_with_the_newest_report_of_this_machine(self):
        self.call("--resume", "machine/1")
        today, = self.out.glob("*.json")
        earlier = today.with_name("2020-01-01" + today.name[10:])
        today.with_suffix(".md").unlink()
        today.rename(earlier)
        self.assertEqual(self.call("--resume", "machine/1", "overhead")[0], ["overhead"] * 2)
        self.assertEqual([path.name for path in self.out.glob("*.json")], [earlier.name])

    def test_what_failed_is_tried_again_after_the_rest(self):
        (self.bench / "machine fails").touch()
        ran, last = self.call("--resume", "machine/1")
        self.assertEqual((ran, self.code), (["machine"], 1))
        self.assertIn("failed: machine/1; to go on: scripts/bench", last)
        (self.bench / "machine fails").unlink()
        self.assertEqual(self.call("--resume", "machine/1", "overhead")[0], ["overhead"] * 2 + ["machine"] * 2)
        self.assertEqual(self.code, 0)
        self.assertIn("cases", self.report()["rows"]["machine/1"])

    def test_what_was_disturbed_is_measured_again_after_the_rest(self):
        self.call("--resume", "machine/1")
        found, = self.out.glob("*.json")
        report = json.loads(found.read_text(encoding="utf-8"))
        self.assertEqual({"busy_cores", "stolen_cores"} - set(report["rows"]["machine/1"]), set())
        report["rows"]["machine/1"]["busy_cores"] = 0.21
        found.write_text(json.dumps(report), encoding="utf-8")
        self.assertEqual(self.call("--resume", "--busy", 0.21, "machine/1")[0], [])
        self.assertEqual(self.call("--resume", "--busy", 0.2, "machine/1", "overhead")[0], ["overhead"] * 2 + ["machine"] * 2)

    def change(self, row, **values):
        found, = self.out.glob("*.json")
        report = json.loads(found.read_text(encoding="utf-8"))
        report["rows"][row] |= values
        found.write_text(json.dumps(report), encoding="utf-8")

    def test_what_was_disturbed_more_does_not_replace_what_was_less(self):
        self.call("--resume", "machine/1")
        self.change("machine/1", busy_cores=-1, date="before")  # less than any measurement can have
        self.assertEqual(self.call("--resume", "--busy", -2, "machine/1")[0], ["machine"] * 2)
        self.assertEqual(self.report()["rows"]["machine/1"]["date"], "before")
        (self.bench / "machine fails").touch()
        self.assertIn("failed: machine/1", self.call("--resume", "--busy", -2, "machine/1")[1])
        self.assertEqual(self.report()["rows"]["machine/1"]["date"], "before")
        (self.bench / "machine fails").unlink()
        self.change("machine/1", busy_cores=1e6)
        self.call("--resume", "--busy", 0, "machine/1")
        self.assertNotEqual(self.report()["rows"]["machine/1"]["date"], "before")

    def test_a_row_that_takes_too_long_is_cut_and_given_more(self):
        (self.bench / "machine hangs").touch()
        ran, last = self.call("--resume", "--seconds", 8, "machine/1")
        self.assertEqual((ran, self.code), (["machine"], 0))
        self.assertIn("left: 1 rows", last)
        least = self.report()["cut"]["machine/1"]
        self.assertGreater(least, 1)
        ran, last = self.call("--resume", "--seconds", least, "machine/1")  # no more than it had
        self.assertEqual(ran, [])
        (self.bench / "machine hangs").unlink()
        self.assertEqual(self.call("--resume", "--seconds", 100, "machine/1")[0], ["machine"] * 2)
        self.assertEqual(self.report()["cut"], {})

    def test_time_spent_before_counts(self):
        self.assertEqual(self.call("--resume", "--seconds", 20, "--spent", 19, "machine/1")[0], [])

    def test_targets_of_now_judge_what_was_measured(self):
        self.call("--resume", "overhead")
        cases = self.report()["rows"]["overhead/1"]["cases"]
        cases["a case"]["target"] = "of an earlier day"
        for programs, asked in (("1", "overhead"), ("2", "overhead"), ("2", "machine/1")):  # kept, waiting, not asked for
            self.change("overhead/1", cases=cases)
            self.build_of(programs)
            self.assertEqual(self.call("--resume", "--seconds", 0.1, asked)[0], [])
            self.assertEqual(self.report()["rows"]["overhead/1"]["cases"]["a case"]["target"], "1 x peer", asked)


class Order(unittest.TestCase):
    SAME = {"tree": "t"}

    def order(self, names, entries, runs=3):
        return [row.name for row in resume.pending([BY_NAME[name] for name in names], entries, lambda row: self.SAME, runs)]

    def test_what_stays(self):
        whole = self.SAME | {"runs": 7, "cases": {}, "busy_cores": 0.3}
        failed = self.SAME | {"runs": 7, "failed": "why"}
        for before, entry, stays in ((whole, whole, False), (whole, whole | {"busy_cores": 0.4}, True),
                                     (whole, whole | {"busy_cores": 0.2}, False), (whole, failed, True),
                                     (whole, whole | {"runs": 2, "busy_cores": 0}, True), (failed, failed, False),
                                     (whole, whole | {"runs": 11, "busy_cores": 0.4}, False), (failed, whole, False),
                                     (None, whole, False), (whole | {"tree": "u"}, failed, False)):
            self.assertEqual(resume.stays(before, entry, self.SAME), stays, (before, entry))

    def test_missing_then_older_then_failed(self):
        entries = {"machine/1": {"runs": 3, "tree": "t", "failed": "why"}, "startup": {"runs": 3, "cases": {}},
                   "size": {"runs": 3, "tree": "t", "cases": {}}}
        self.assertEqual(self.order(["machine/1", "startup", "size", "compile"], entries), ["compile", "startup", "machine/1"])

    def test_of_older_rows_the_oldest_day_comes_first(self):
        entries = {name: {"runs": 3, "cases": {}, "date": date} for name, date in
                   (("machine/1", "2026-02-02"), ("train/mlp/1x1", "2026-02-02"), ("compile", "2026-02-01"))}
        self.assertEqual(self.order(["machine/1", "train/mlp/1x1", "compile"], entries),
                         ["compile", "machine/1", "train/mlp/1x1"])

    def test_all_rows_are_asked_for_but_the_slow_one(self):
        names = [row.name for row in ROWS if not row.gpu and not row.slow]
        self.assertTrue({"size", "compile", "exposed", "fork_join/2", "startup", "startup/mpi", "growth/batch", "growth/width",
                         "growth/depth", "growth/ranks"} <= set(names))
        quick = names[:names.index("train/mlp/1x1")]
        self.assertLess(sum(resume.expected(BY_NAME[name], 7) for name in quick), 240)

    def test_disturbed_rows_come_last(self):
        entries = {"machine/1": {"runs": 3, "tree": "t", "cases": {}, "busy_cores": 0.3},
                   "machine/2": {"runs": 3, "tree": "t", "cases": {}, "busy_cores": 0.2},
                   "startup": {"runs": 3, "tree": "t", "failed": "why"}}
        self.assertEqual(self.order(["machine/1", "machine/2", "startup", "size"], entries), ["size", "startup", "machine/1"])

    def test_rows_of_a_gpu_keep_their_order(self):
        entries = {"gpu/machine": {"runs": 3, "cases": {}}}
        self.assertEqual(self.order(["gpu/machine", "gpu/train/gpt2"], entries), ["gpu/machine", "gpu/train/gpt2"])

    def test_losses_that_differ_are_a_failure(self):
        entries = {"gpu/machine": {"runs": 3, "tree": "t", "cases": {}, "dropped": {"losses": "differ"}}}
        self.assertEqual(self.order(["gpu/machine", "gpu/train/gpt2"], entries), ["gpu/train/gpt2", "gpu/machine"])

    def test_the_first_minutes_of_a_gpu(self):
        names = [row.name for row in ROWS if row.gpu]
        whole = ["gpu/train/gpt2", "gpu/train/gpt2/graph", "gpu/train/resnet50", "gpu/train/resnet50/graph"]
        self.assertEqual(names[:7], ["gpu/machine", *whole, "gpu/attention/bf16", "gpu/gemm/bf16"])
        self.assertLess(sum(resume.expected(BY_NAME[name], 3) for name in names[:5]), 510)

    def test_expected_seconds(self):
        row = BY_NAME["startup"]
        self.assertEqual(resume.expected(row, 7), 21)
        self.assertEqual(resume.expected(row, 7, {"runs": 2, "seconds": 4, "cases": {}}), 14)
        self.assertEqual(resume.expected(row, 7, {"runs": 2, "seconds": 4, "failed": "why"}), 21)
        self.assertEqual(resume.expected(row, 7, cut=30), 30)
        self.assertEqual(resume.expected(BY_NAME["build"], 7), BY_NAME["build"].seconds)


class Identity(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)

    def write(self, name, text="text"):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")
        return [sources.programs(self.root, False), sources.programs(self.root, True), sources.measuring(self.root)]

    def test_what_decides_figures(self):
        before = self.write("tensor/a.cpp")
        for name in ("tensor/README.md", "tests/a.cpp", "docs/a.md", "bench/table.py"):
            self.assertEqual(self.write(name), before, name)
        for name, changed in (("tensor/a.h", [0, 1]), ("accelerators/cuda/a.cu", [1]), ("bench/peers/a.py", [2]),
                              ("bench/measure.py", [2]), ("CMakeLists.txt", [0, 1])):
            after = self.write(name)
            self.assertEqual([i for i in range(3) if after[i] != before[i]], changed, name)
            before = after
        self.assertNotEqual(self.write("tensor/a.cpp", "other"), before)

    def test_settings(self):
        cases = "[gemm_f32]\n# why\na 1\n\n[rows]\nb 2\n"
        row = BY_NAME["gemm_f32/1"]
        same = resume.settings(row, cases, False)
        self.assertEqual(same, resume.settings(dataclasses.replace(row, targets={}, what=""), cases.replace("b", "c"), False))
        self.assertNotEqual(same, resume.settings(row, cases.replace("a", "c"), False))
        self.assertNotEqual(same, resume.settings(dataclasses.replace(row, threads=2), cases, False))

    def test_clocks_of_the_moment_do_not_count(self):
        row = BY_NAME["gpu/machine"]
        one, two = ({"gpu": "G", "gpu_clocks": clock, "date": clock, "loom": clock} for clock in ("1", "2"))
        self.assertEqual(resume.identity(row, "", one, "t"), resume.identity(row, "", two, "t"))
        self.assertNotEqual(resume.identity(row, "", one, "t"), resume.identity(row, "", one | {"gpu": "H"}, "t"))


unittest.main()
