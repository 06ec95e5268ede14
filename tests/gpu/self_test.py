#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The parts of scripts/gpu that need no GPU: verdicts, time limits, what tools print.

usage: self_test.py SOURCE_ROOT
"""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import time
import unittest
from unittest import mock

ROOT = pathlib.Path(sys.argv.pop(1))
sys.path += [str(ROOT / "tests/gpu"), str(ROOT / "tests/cuda"), str(ROOT / "bench")]

import build  # noqa: E402
import identity  # noqa: E402
import pack  # noqa: E402
import phases  # noqa: E402
import registers  # noqa: E402
import run  # noqa: E402
import sources  # noqa: E402
from predictions import Predictions  # noqa: E402
from rows import ROWS  # noqa: E402
from session import FAIL, PASS, SKIP, Check, Result, Session, doctest_result, table  # noqa: E402


def shell(name, script, **more):
    return Check(name, ["sh", "-c", script], **more)


class Sessions(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)

    def session(self, seconds=60):
        return Session("phase", pathlib.Path(self.scratch.name), seconds)

    def run_quietly(self, session, checks):
        with contextlib.redirect_stdout(io.StringIO()):
            session.run_all(checks, 2)
        return {entry["check"]: entry for entry in session.results}

    def test_verdicts(self):
        results = self.run_quietly(self.session(), [
            shell("good", "true"), shell("bad", "echo why; exit 3"), shell("alone", "true", alone=True),
            shell("skipped", "echo 'x.cpp: MESSAGE: skipped: no CUDA device'"), shell("absent", "true", without="no tool"),
            Check("no program", ["/nonexistent/program"])])
        self.assertEqual({name: entry["verdict"] for name, entry in results.items()},
                         {"phase/good": PASS, "phase/bad": FAIL, "phase/alone": PASS, "phase/skipped": SKIP,
                          "phase/absent": SKIP, "phase/no program": FAIL})
        self.assertIn("exit code 3; why", results["phase/bad"]["note"])
        self.assertEqual(results["phase/skipped"]["note"], "no CUDA device")

    def test_time_limits(self):
        started, session = time.monotonic(), self.session(5.8)
        results = self.run_quietly(session, [shell("slow", "sleep 60", seconds=5.2), shell("long", "sleep 60"),
                                             shell("late", "true")])
        self.assertLess(time.monotonic() - started, 30)
        self.assertEqual((results["phase/slow"]["verdict"], results["phase/slow"]["note"]), (FAIL, "not done after 5 s"))
        self.assertEqual(results["phase/long"]["verdict"], SKIP)
        self.assertEqual(results["phase/long"]["note"], "left, not done after 6 s")
        self.assertEqual(results["phase/late"]["note"], "no time was left")
        self.assertEqual(session.left_out, {"long": 120, "late": 0})

    def test_alone_comes_first(self):
        session = self.session()
        self.run_quietly(session, [shell("a", "true"), shell("b", "true", alone=True)])
        self.assertEqual([entry["check"] for entry in session.results], ["phase/b", "phase/a"])

    def going_on(self, checks, of="tree", *, fresh=False):
        """Of a later call: (check, verdict, whether it ran again)."""
        session = self.session()
        session.go_on(of, fresh)
        self.run_quietly(session, checks)
        return [(entry["check"].partition("/")[2], entry["verdict"], not entry["note"].startswith("(earlier)"))
                for entry in session.results]

    def test_what_passed_is_not_run_again(self):
        checks = [shell("good", "true"), shell("skipped", "echo skipped: no device"), shell("bad", "exit 1", alone=True)]
        first = [("bad", FAIL, True), ("good", PASS, True), ("skipped", SKIP, True)]
        self.assertCountEqual(self.going_on(checks), first)
        self.assertCountEqual(self.going_on(checks), [("good", PASS, False), ("skipped", SKIP, True), ("bad", FAIL, True)])
        self.assertEqual(self.going_on(checks)[-1], ("bad", FAIL, True))  # after all else, though it runs alone
        self.assertCountEqual(self.going_on(checks, "another tree"), first)
        self.assertCountEqual(self.going_on(checks, fresh=True), first)

    def test_what_was_cut_comes_later(self):
        session = self.session(5.5)
        session.go_on("tree", False)
        self.run_quietly(session, [shell("long", "sleep 60", alone=True), shell("rest", "true")])
        self.assertEqual(session.left_out, {"long": 120, "rest": 0})
        checks = [shell("bad", "exit 1", alone=True), shell("long", "true", alone=True), shell("rest", "true")]
        self.going_on(checks[:1])
        self.assertEqual([name for name, _, _ in self.going_on(checks)], ["rest", "long", "bad"])

    def test_fresh_is_not_undone_by_a_later_call(self):
        self.going_on([shell("a", "true"), shell("b", "true")])
        self.going_on([shell("a", "true")], fresh=True)  # and there was no time for b
        self.assertCountEqual(self.going_on([shell("a", "true"), shell("b", "true")]), [("a", PASS, False), ("b", PASS, True)])

    def test_what_fails_later_has_not_passed(self):
        for script, expected in (("true", [("a", PASS, True)]), ("exit 1", [("a", PASS, False)])):
            self.assertEqual(self.going_on([shell("a", script)]), expected)
        self.going_on([shell("a", "exit 1")], fresh=True)
        self.assertEqual(self.going_on([shell("a", "true")]), [("a", PASS, True)])

    def test_a_report_that_was_cut(self):
        path = pathlib.Path(self.scratch.name) / "report.jsonl"
        path.write_text('{"check": "phase/a", "verd', encoding="utf-8")
        self.assertEqual(self.going_on([shell("a", "true")]), [("a", PASS, True)])
        self.assertEqual(self.going_on([shell("a", "true")]), [("a", PASS, False)])

    def test_the_report_grows(self):
        self.run_quietly(self.session(), [shell("one", "echo text")])
        self.run_quietly(self.session(), [shell("two", "true")])
        folder = pathlib.Path(self.scratch.name)
        lines = (folder / "report.jsonl").read_text(encoding="utf-8").splitlines()
        self.assertEqual([json.loads(line)["check"] for line in lines], ["phase/one", "phase/two"])
        self.assertIn("text", (folder / "log.txt").read_text(encoding="utf-8"))

    def test_a_reader_that_fails(self):
        results = self.run_quietly(self.session(), [shell("odd", "true", read=lambda code, output: output[99])])
        self.assertEqual(results["phase/odd"]["verdict"], FAIL)

    def test_the_table_has_what_failed_first(self):
        lines = table([{"check": f"c{i}", "verdict": verdict, "seconds": 1, "note": ""}
                       for i, verdict in enumerate([PASS] * 80 + [FAIL])]).splitlines()
        self.assertIn("FAIL c80", lines[1])
        self.assertEqual(lines[-1], "1 FAIL, 0 SKIP, 80 PASS")
        self.assertLess(len(lines), 65)


class GivenBuilds(unittest.TestCase):
    """A folder whose unit_tests is a script, on a machine with a GPU."""

    def found(self, script, *, nvcc, gpu="NVIDIA H100"):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        program = pathlib.Path(scratch.name) / "tests/unit_tests"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        with mock.patch.object(build, "made", return_value="made"), \
                mock.patch.object(build, "tool", return_value="nvcc" if nvcc else ""), \
                mock.patch.object(build, "output_of", return_value=gpu), \
                contextlib.redirect_stdout(io.StringIO()) as told:
            return build.found(scratch.name, False), told.getvalue()

    OLD_DRIVER = '[ "$1" = --count ] || echo "a.cpp:1: MESSAGE: skipped: no CUDA device: the driver is of CUDA 12.4"'

    def test_what_runs_is_taken(self):
        made, told = self.found("exit 0", nvcc=True)
        self.assertIsInstance(made, build.Build)
        self.assertEqual(told, "")

    def test_what_does_not_start_is_built(self):
        self.assertEqual(self.found("echo no such library; exit 127", nvcc=True)[0], "made")

    def test_what_finds_no_gpu_is_built(self):
        made, told = self.found(self.OLD_DRIVER, nvcc=True)
        self.assertEqual(made, "made")
        self.assertIn("the driver is of CUDA 12.4", told)

    def test_what_finds_no_gpu_is_told_of_where_it_cannot_be_built(self):
        made, told = self.found(self.OLD_DRIVER, nvcc=False)
        self.assertIn("no nvcc", told)
        with mock.patch.object(phases, "output_of", return_value="NVIDIA H100"):
            result = phases.machine(made).read(0, "a.cpp:1: MESSAGE: skipped: no CUDA device: the driver is of CUDA 12.4\n")
        self.assertEqual(result.verdict, FAIL)
        self.assertIn("the driver is of CUDA 12.4", result.note)
        self.assertIn("to do: ", result.note)

    def test_a_machine_without_a_gpu_takes_what_starts(self):
        self.assertIsInstance(self.found(self.OLD_DRIVER, nvcc=True, gpu="")[0], build.Build)


class Texts(unittest.TestCase):
    def test_doctest(self):
        self.assertEqual(doctest_result(0, "[doctest] test cases:  0 |  0 passed | 0 failed |").verdict, SKIP)
        self.assertEqual(doctest_result(0, "[doctest] test cases: 10 | 10 passed | 0 failed |").verdict, PASS)
        self.assertIn("a.cpp:3: ERROR: CHECK( x )", doctest_result(1, "a.cpp:3: ERROR: CHECK( x )\n").note)

    def test_sanitizer(self):
        bad = "========= Invalid __global__ write of size 4 bytes\n========= ERROR SUMMARY: 1 error\n"
        self.assertIn("Invalid __global__ write", phases.sanitizer_result(9, bad).note)
        self.assertEqual(phases.sanitizer_result(0, "========= ERROR SUMMARY: 0 errors\n").verdict, PASS)

    def test_ncu(self):
        header = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
        lines = [f'"0","{name}","{metric}","","{value}"' for name, time_ in (("slow", "2,000"), ("quick", "1"))
                 for metric, value in (("gpu__time_duration.sum", time_),
                                       ("dram__throughput.avg.pct_of_peak_sustained_elapsed", "50"))]
        with contextlib.redirect_stdout(io.StringIO()):
            result = phases.kernels_result(0, "==PROF== said\n" + header + "\n".join(lines) + "\n")
        self.assertEqual(result.data["kernels"][0]["kernel"], "slow")
        self.assertEqual(result.data["kernels"][0]["dram %"], 50)
        self.assertEqual(phases.kernels_result(1, "no").verdict, FAIL)

    def test_registers(self):
        log = ("ptxas info    : Compiling entry function '_ZN4loom1fEv' for 'sm_90'\n"
               "ptxas info    : Function properties for _ZN4loom1fEv\n"
               "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
               "ptxas info    : Used 255 registers, 400 bytes cmem[0]\n")
        kernel, = registers.named(registers.kernels_of(log))
        self.assertEqual((kernel.name, kernel.registers, kernel.spilled), ("loom::f()", 255, 12))
        self.assertTrue(registers.is_hot(kernel))
        self.assertFalse(registers.is_hot(registers.Kernel("loom::dense<double, 4>(double*)")))
        self.assertTrue(registers.is_hot(registers.Kernel("loom::dense<float, 4>(float*, double)")))

    def test_row_of_the_benchmark(self):
        row = {"cases": {"a": {"verdict": "met"}, "b": {"verdict": "not met"}}, "dropped": {"compile": "failed"}}
        self.assertEqual(phases.row_result(row), Result(PASS, "1 met, 1 not met; compile: failed"))
        few = {"verdict": "open", "few_runs": "all reach it"}
        row = {"cases": {"a": few, "b": few, "c": {"verdict": "open"}}, "dropped": {}}
        self.assertEqual(phases.row_result(row), Result(PASS, "3 open (few runs: 2 all reach it)"))
        self.assertEqual(phases.row_result({"skipped": "no time was left"}).verdict, SKIP)

    def test_rows_of_several_calls(self):
        whole = {"cases": {"a": {"verdict": "met"}}, "dropped": {}, "seconds": 3}
        report = {"rows": {"gpu/a": whole, "gpu/of another tree": whole, "gpu/bad": {"failed": "why"}},
                  "left": ["gpu/of another tree", "gpu/new", "gpu/long"], "cut": {"gpu/long": 7}}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            session = Session("bench", pathlib.Path(folder), 60)
            phases.tell_rows(session, report)
        self.assertEqual([(entry["check"], entry["verdict"], entry["note"]) for entry in session.results],
                         [("bench/a", PASS, "1 met"), ("bench/bad", FAIL, "why"), ("bench/of another tree", SKIP, "left"),
                          ("bench/new", SKIP, "left"), ("bench/long", SKIP, "left, not done after 7 s")])

    def test_report_of_the_benchmark(self):
        output = "# Benchmarks\nbench: wrote a.json and .md\nbench: nothing is left\n"
        self.assertEqual(phases.report_result(1, output), Result(PASS, "bench: nothing is left"))
        self.assertEqual(phases.report_result(0, "bench: no").verdict, FAIL)
        self.assertEqual(phases.report_result(0, "").verdict, FAIL)

    def test_the_command_that_goes_on(self):
        with mock.patch.object(sys, "argv", ["gpu", "bench", "--build", "a b.tar.xz", "--seconds", "100", "--fresh"]):
            given = run.arguments()
        self.assertEqual(run.again(given, ["bench"]), "scripts/gpu bench --build 'a b.tar.xz' --seconds 100")
        with mock.patch.object(sys, "argv", ["gpu", "--rehearse", "--out", "/tools"]):
            given = run.arguments()
        self.assertEqual(run.again(given, ["parity", "tools"]), "scripts/gpu parity tools --rehearse --out /tools")

    def test_what_is_left_is_named(self):
        def left(phase, *names):
            return mock.Mock(phase=phase, left_out=dict.fromkeys(names, 0))
        with mock.patch.object(sys, "argv", ["gpu"]):
            given = run.arguments()
        self.assertEqual(run.what_is_left([left("parity"), left("bench", "report"), left("tools")], given), "")
        self.assertEqual(run.what_is_left([left("parity", "a", "b"), left("bench"), left("tools", "c")], given),
                         "gpu: for 3 checks no time was left: parity/a, parity/b, tools/c; "
                         "to go on: scripts/gpu parity tools")
        begun = mock.Mock(phase="parity", left_out={"a": 400, "b": 120})
        self.assertRegex(run.what_is_left([begun], given), "gpu parity$")
        given.seconds = 60
        self.assertRegex(run.what_is_left([begun], given), "gpu parity --seconds 430$")
        self.assertRegex(run.what_is_left([begun, left("tools", "c")], given), "gpu parity tools --seconds 60$")
        self.assertIn(", parity/11 and 8 more; ", run.what_is_left([left("parity", *map(str, range(20)))], given))

    def test_a_phase_that_is_not_there(self):
        with mock.patch.object(sys, "argv", ["gpu", "tool"]), contextlib.redirect_stderr(io.StringIO()) as told, \
                self.assertRaises(SystemExit):
            run.arguments()
        self.assertIn("there are parity, bench, ranks, tools, no 'tool'", told.getvalue())

    def test_what_a_check_says_something_of(self):
        with tempfile.TemporaryDirectory() as folder:
            made = build.Build(folder)
            known = {"gpu": "NVIDIA H100", "libraries": ["libcudnn.so.9"], "cores": 4, "build": folder}
            same = identity.of(made, known)
            self.assertEqual(identity.of(made, known | {"cores": 8, "build": "elsewhere"}), same)
            self.assertNotEqual(identity.of(made, known | {"gpu": "NVIDIA H200"}), same)
            self.assertNotEqual(identity.of(build.Build(folder, emulated=True), known), same)
            with mock.patch.dict("os.environ", {"LOOM_SWEEP": "other"}):
                self.assertNotEqual(identity.of(made, known), same)
            with mock.patch.object(sources, "tests", return_value="changed"):
                self.assertNotEqual(identity.of(made, known), same)
                (made.folder / sources.RECORD).write_text(json.dumps(sources.record(ROOT, True)), encoding="utf-8")
                carried = identity.of(made, known)
            self.assertEqual(identity.of(made, known), carried)  # what it was made from, not what is here

    def test_ways_are_those_of_ctest(self):
        listed = (ROOT / "tests/CMakeLists.txt").read_text(encoding="utf-8")
        self.assertIn("cuda/ways.txt", listed)
        self.assertNotRegex(listed, r"foreach\(way [^\n]*=")
        ways = list(phases.ways())
        self.assertEqual(len(set(ways)), len(ways))
        self.assertLessEqual({file for file, _, _ in ways}, {*phases.test_files("unit", "cuda_*")})
        for way in (("cuda_autotune", "LOOM_AUTOTUNE", "1"), ("cuda_conv", "LOOM_AUTOTUNE", "1"),
                    ("cuda_fused", "LOOM_EPILOGUES", "0"), ("cuda_memory", "LOOM_POISON", "0")):
            self.assertIn(way, ways)
        with mock.patch.object(phases, "cases_of", return_value=["a case"]):
            checks = {check.name: check for check in phases.parity(build.Build("."))}
        for file, variable, value in ways:
            self.assertEqual(checks[f"{file}/{variable}={value}"].environment[variable], value)

    def test_a_leak_must_be_told_of(self):
        told = "test cases: 1\nloom: memory of cuda:0: 1 block is still in use, 4096 bytes: 4096 (the 1th"
        read = phases.leak(build.Build(".")).read
        self.assertEqual([read(0, told).verdict, read(0, "test cases: 1").verdict, read(1, told).verdict], [PASS, FAIL, FAIL])

    def test_the_profile_comes_before_the_sanitizers(self):
        first = phases.tools(build.Build("."))[0]
        self.assertEqual((first.name, first.alone), ("ncu/gpt2", True))

    def test_a_pack_says_what_it_was_made_from(self):
        with tempfile.TemporaryDirectory() as folder:
            here, there = pathlib.Path(folder) / "here", pathlib.Path(folder) / "there"
            here.mkdir()
            there.mkdir()
            (here / "CMakeCache.txt").write_text("", encoding="utf-8")
            of_the_tree = sources.measured(ROOT, here, True)
            pack.add_build(build.Build(here), there)
            self.assertEqual(sources.measured(ROOT, there, True), of_the_tree)
            (there / sources.RECORD).write_text('{"loom": "c", "programs": "p"}', encoding="utf-8")
            commit, tree = sources.measured(ROOT, there, True)
            self.assertEqual(commit, "c")
            self.assertNotEqual(tree, of_the_tree[1])

    def test_large_tensors_are_not_sanitized(self):
        names = {check.name.partition("/")[2] for check in phases.sanitizers(build.Build("."))}
        self.assertEqual(names, {*phases.test_files("unit", "cuda_*")} - {"cuda_large"})

    def test_every_row_of_a_gpu_has_a_prediction(self):
        told = Predictions(ROOT / "docs/benchmarks/gpu_predictions.md")
        cases = (ROOT / "bench/cases.txt").read_text(encoding="utf-8").splitlines()
        for row in (row for row in ROWS if row.gpu):
            names = ["step", "throughput", "peak memory"]
            if "micro" in row.ours:
                group = f"[{row.ours[1].removeprefix('group=')}]"
                names = []
                for line in cases[cases.index(group) + 1:]:
                    if line.startswith("["):
                        break
                    if line and not line.startswith("#"):
                        names.append(line)
            elif row.ours == ["machine"]:
                names = ["products, f32", "products, bf16", "copy of 1 GiB"]
            for name in names:
                self.assertTrue(told.of(row.name, name), f"{row.name}: {name}")


unittest.main()
