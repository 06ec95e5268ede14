#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The bounds and verdicts of the benchmark's report, and how the times and the load behind it are taken.

usage: bench_stats.py SOURCE_ROOT
"""
import pathlib
import sys
import unittest
from unittest import mock

BENCH = pathlib.Path(sys.argv.pop(1)) / "bench"
sys.path += [str(BENCH), str(BENCH / "peers")]

import machine  # noqa: E402
import measure  # noqa: E402
import timing  # noqa: E402
from rows import ROWS, Row  # noqa: E402
from stats import ALL_FEW, BEHIND, MET, NEARLY, NONE_FEW, OPEN, Bounded, Target, bounded, exponent, judged, summary  # noqa: E402
from table import case_line, markdown, row_lines, summary_lines  # noqa: E402


class Bounds(unittest.TestCase):
    def test_seven_values_are_bounded_by_the_extremes(self):
        self.assertEqual(bounded([3, 1, 2, 7, 5, 4, 6]), Bounded(4, 1, 7, True))

    def test_five_values_bound_nothing(self):
        self.assertFalse(bounded([1, 2, 3, 4, 5]).sure)
        self.assertTrue(bounded([1, 2, 3, 4, 5, 6]).sure)

    def test_more_values_leave_out_extremes(self):
        # 2 P(Bin(11, 1/2) < 2) = 0.0117, and < 3 is 0.065: the second of each end
        self.assertEqual(bounded(list(range(11))), Bounded(5, 1, 9, True))

    def test_exponent(self):
        self.assertAlmostEqual(exponent([(1, 3), (2, 12), (4, 48)]), 2)
        self.assertIsNone(exponent([(1, 3)]))


class Verdicts(unittest.TestCase):
    @staticmethod
    def verdict(target, ours, theirs, unit="ms", limits=None):
        case = {"unit": unit, "ours": ours, "theirs": {"slow": [9 * max(theirs)] * len(theirs), "peer": theirs}}
        if unit.endswith("/s"):
            case["theirs"].pop("slow")
        if limits:
            case["limits"] = limits
        return summary(case, target)

    def test_the_best_variant_counts_and_less_time_is_better(self):
        result = self.verdict(Target(ratio=1.3), [2.0] * 7, [3.0] * 7)
        self.assertEqual((result["variant"], result["ratio"]["median"], result["verdict"]), ("peer", 1.5, MET))

    def test_not_met_only_when_the_upper_bound_is_below(self):
        self.assertEqual(self.verdict(Target(ratio=1.3), [2.0] * 7, [2.2] * 7)["verdict"], BEHIND)
        self.assertEqual(self.verdict(Target(ratio=1.3), [2.0] * 7, [2.2] * 6 + [3.0])["verdict"], OPEN)
        self.assertEqual(self.verdict(Target(ratio=1.3), [2.0] * 5, [2.2] * 5)["verdict"], OPEN)

    def test_few_runs_meet_nothing(self):
        self.assertEqual(self.verdict(Target(ratio=1.3), [2.0] * 5, [9.0] * 5)["verdict"], OPEN)
        self.assertEqual(self.verdict(Target(most=3), [2.0] * 5, [9.0] * 5)["verdict"], OPEN)
        self.assertEqual(self.verdict(Target(ratio=1.3), [2.0] * 6, [9.0] * 6)["verdict"], MET)

    def test_few_runs_that_agree_are_told(self):
        found = [self.verdict(Target(ratio=1.3), [2.0] * 3, theirs) for theirs in ([2.7] * 3, [2.7, 2.7, 2.5], [2.5] * 3)]
        self.assertEqual([(result["verdict"], result.get("few_runs")) for result in found],
                         [(OPEN, ALL_FEW), (OPEN, None), (OPEN, NONE_FEW)])
        self.assertIn("| open, few runs: none reaches it |", case_line("a", found[2]))
        both, either = Target(ratio=1.3, limit=0.9), Target(ratio=1.3, limit=0.9, either=True)
        one_of_two = ([2.0] * 3, [2.7] * 3, "ms", [1.0] * 3)
        self.assertEqual([self.verdict(target, *one_of_two)["few_runs"] for target in (both, either)], [NONE_FEW, ALL_FEW])

    def test_a_peer_that_ran_once_bounds_nothing(self):
        case = {"unit": "ms", "ours": [2.0] * 6 + [2.5], "theirs": {"eager": [9.0] * 7, "compile": [3.0]}}
        for theirs in (case["theirs"], case["theirs"] | {"compile": [3.0] * 7}):  # as earlier reports have it
            result = summary(case | {"theirs": theirs}, Target(ratio=1.1), once={"compile": []})
            self.assertEqual(result["ratio"], Bounded(1.5, 1.2, 1.5, False).as_json())
            self.assertEqual((result["variant"], result["verdict"], result["few_runs"]), ("compile", OPEN, ALL_FEW))
        case["theirs"]["eager"] = [2.9] * 7
        self.assertEqual(summary(case, Target(ratio=1.1), once={"compile": []})["verdict"], MET)  # the best one ran as often

    def test_a_peer_beside_does_not_count(self):
        case = {"unit": "ms", "ours": [2.0] * 7, "theirs": {"MKL": [2.2] * 7, "packed": [1.0] * 7}}
        result = summary(case, Target(ratio=1), beside=("packed",))
        self.assertEqual((result["variant"], result["verdict"], result["beside"]), ("MKL", MET, {"packed": 1.0}))
        self.assertIn("| 2.2 (MKL); not counted: 1 (packed) |", case_line("a", result))

    def test_a_lower_bound_below_is_told(self):
        surely = self.verdict(Target(ratio=1.3), [2.0] * 7, [2.6] * 7)
        nearly = self.verdict(Target(ratio=1.3), [2.0] * 7, [2.5] + [2.7] * 6)
        self.assertEqual((surely["verdict"], nearly["verdict"]), (MET, MET))
        self.assertNotIn("bound_below", surely)
        self.assertTrue(nearly["bound_below"])
        self.assertIn(f"| {NEARLY} |", case_line("a", nearly))
        self.assertEqual([judged(Bounded(1.3, low, 2, True), 1.3) for low in (1.29, 1.3)], [NEARLY, MET])

    def test_one_of_two_targets_is_enough_when_its_bound_is(self):
        either, times = Target(ratio=1.3, limit=0.85, either=True), ([2.0] * 7, [2.5] + [2.7] * 6)
        self.assertTrue(self.verdict(either, *times, limits=[1.0] * 7)["bound_below"])
        self.assertNotIn("bound_below", self.verdict(either, *times, limits=[1.9] * 7))
        both = self.verdict(Target(ratio=1.3, limit=0.85), *times, limits=[1.9] * 7)
        self.assertEqual((both["verdict"], both["bound_below"]), (MET, True))

    def test_rates(self):
        self.assertEqual(self.verdict(Target(ratio=0.95), [96.0] * 7, [100.0] * 7, "GFLOP/s")["verdict"], MET)

    def test_share_of_the_limit(self):
        times = ([2.0] * 7, [2.2] * 7)
        near, far = [1.9] * 7, [1.0] * 7
        either, both = Target(ratio=1.3, limit=0.85, either=True), Target(ratio=1.0, limit=0.85)
        self.assertEqual(self.verdict(either, *times, limits=near)["verdict"], MET)
        self.assertEqual(self.verdict(either, *times, limits=far)["verdict"], BEHIND)
        self.assertEqual(self.verdict(both, *times, limits=far)["verdict"], BEHIND)
        self.assertEqual(self.verdict(both, *times, limits=near)["verdict"], MET)

    def test_what_the_processor_computes_is_the_best_of_all_runs(self):
        halved = {"unit": "GFLOP/s", "ours": [80.0] * 7, "theirs": {}, "limits": [50.0] * 6 + [100.0]}
        for case in (halved, halved | {"bound": "products"}):  # earlier reports do not tell what the bound is
            self.assertEqual(summary(case, None)["share"], Bounded(0.8, 0.8, 0.8, True).as_json())
        time = {"unit": "ms", "bound": "products", "ours": [2.0] * 7, "theirs": {}, "limits": [3.0] * 6 + [1.0]}
        self.assertEqual((summary(time, None)["limit"], summary(time, None)["share"]["high"]), (1.0, 0.5))

    def test_memory_counts_as_it_was_in_the_same_run(self):
        case = {"unit": "ms", "bound": "memory", "ours": [2.0, 4.0] * 4, "theirs": {}, "limits": [1.0, 2.0] * 4,
                "huge_limits": [0.5, 1.0] * 4}
        result = summary(case, None)
        self.assertEqual(result["share"], Bounded(0.5, 0.5, 0.5, True).as_json())
        self.assertEqual(result["huge_share"], Bounded(0.25, 0.25, 0.25, True).as_json())
        self.assertIn("| 50% (50%..50%) | 25% (25%..25%) |", case_line("a", result, ["huge_share"]))

    def test_the_limit_of_memory_counts_from_16_mib_on(self):
        row, = (row for row in ROWS if row.name == "rows/1")
        case = {"unit": "ms", "ours": [2.0] * 7, "theirs": {"eager": [2.2] * 7}, "limits": [1.0] * 7}
        for moved, target, verdict in ((1 << 24, "1 x peer, 90% of the limit", BEHIND), ((1 << 24) - 1, "1 x peer", MET)):
            result = summary(case | {"moved": moved}, row.target("a case of any name"))
            self.assertEqual((result["target"], result["verdict"]), (target, verdict))
        del case["limits"]  # a limit that is missing is no excuse
        self.assertEqual(summary(case | {"moved": 1 << 24}, row.target("a case"))["verdict"], OPEN)
        self.assertEqual(summary(case, row.target("sort"))["target"], "1 x peer")  # nobody knows how fast it could be
        self.assertEqual(Target(limit=0.85).of(case | {"moved": 8}).limit, 0.85)  # others hold for what is small too

    def test_absolute_targets(self):
        self.assertEqual(self.verdict(Target(most=3), [2.0] * 7, [9.0] * 7)["verdict"], MET)
        self.assertEqual(self.verdict(Target(most=1), [2.0] * 7, [9.0] * 7)["verdict"], BEHIND)
        self.assertEqual(self.verdict(Target(over=0.5), [2.0] * 7, [1.8] * 7)["verdict"], MET)
        self.assertEqual(self.verdict(Target(over=0.1), [2.0] * 7, [1.8] * 7)["verdict"], BEHIND)

    def test_without_a_peer_it_stays_open(self):
        self.assertEqual(summary({"unit": "ms", "ours": [1.0] * 7, "theirs": {}}, Target(ratio=1))["verdict"], OPEN)

    def test_times_of_bytes_are_rates_as_well(self):
        case = summary({"unit": "us", "bytes": 4 << 20, "ours": [200.0] * 7, "theirs": {"MPI": [400.0] * 7}}, None)
        self.assertIn("| us | 200 = 21 GB/s | 400 = 10.5 GB/s (MPI) | 2.00 (2.00..2.00) |", case_line("4 MB", case))
        del case["bytes"]
        self.assertIn("| us | 200 | 400 (MPI) |", case_line("4 MB", case))


class Measuring(unittest.TestCase):
    def setUp(self):
        self.now = 0
        clock = mock.patch.object(timing.time, "perf_counter", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)

    def call_of(self, seconds):
        """A call that takes what `seconds` says for the how-manieth it is."""
        self.called = 0

        def call():
            self.called += 1
            self.now += seconds(self.called)
        return call

    def test_a_window_that_stands_still_is_no_result(self):
        for stall in (5, 180):  # in the warm-up, in a window
            stalled = self.call_of(lambda i, stall=stall: 5 if i == stall else 1e-3)
            self.assertAlmostEqual(timing.seconds_of_a_call([stalled], 0.15 if stall > 5 else 6, 0.01), 1e-3)
            self.assertGreater(self.now, 5)

    def test_a_short_call_is_warmed_up_by_time_and_a_long_one_by_two_calls(self):
        cold = self.call_of(lambda i: 1e-3 if self.now > 0.149 else 3e-3)
        self.assertAlmostEqual(timing.seconds_of_a_call([cold], 0.15, 0.01), 1e-3)
        long = self.call_of(lambda i: 1 if i > 2 else 3)
        self.assertAlmostEqual(timing.seconds_of_a_call([long], 0.15, 0.01), 1)
        self.assertEqual(self.called, 2 + timing.WINDOWS)

    def test_windows_are_full(self):
        faster = self.call_of(lambda i: 1e-3 if i < 155 else 1e-5)  # by far more of them fit than it seemed
        before = self.now
        timing.seconds_of_a_call([faster], 0.15, 0.01)
        self.assertGreaterEqual(self.now - before, 0.15 + timing.WINDOWS * 0.01)

    def test_calls_take_turns(self):
        order = []
        timing.window([lambda name=name: order.append(name) for name in "abc"], 5, 0, lambda: order.append("rest"))
        self.assertEqual(order, ["rest", *"abcab", "rest"])

    def test_what_others_kept_busy(self):
        times = iter([(100, (40, 1), 10), (110, (58, 2), 25)])  # ours worked 15 of 18 seconds

        def step():
            self.at = next(times)
            return self.at[0]
        others = machine.Others(step, lambda: self.at[1], lambda: self.at[2])
        self.assertEqual(others.told(), {"busy_cores": 0.3, "stolen_cores": 0.1})

    def test_clearly_slower_than_what_counts(self):
        cases = {"a": {"unit": "ms", "theirs": {"eager": [2.0, 2.0], "fused": [1.0, 1.0], "compile": [0.1]}}}
        self.assertEqual(measure.slower(cases), {"eager", "fused"})
        self.assertEqual(measure.slower(cases, {"compile"}), {"eager"})

    def test_what_is_meant_to_run_once_does(self):
        row = Row("a row", "", peers={"eager": [2], "fused": [1.9], "slow": [9]}, once={"compile": [1]})
        record = lambda value: [{"case": "a", "value": value, "unit": "ms"}]
        programs = mock.Mock(ours=lambda _row: record(1.5), peer=lambda _row, command: record(command[0]))
        cases, dropped = measure.measure(row, programs, 7)
        self.assertEqual(cases["a"]["theirs"], {"eager": [2] * 7, "fused": [1.9] * 7, "slow": [9] * 2, "compile": [1]})
        self.assertEqual(dropped, {"slow": "clearly slower in 2 runs"})
        self.assertEqual((result := summary(cases["a"], Target(ratio=1), row.once, row.beside))["variant"], "compile")
        self.assertEqual((result["verdict"], result["few_runs"]), (OPEN, NONE_FEW))

    def test_limits_of_all_kinds_are_kept(self):
        cases, record = {}, {"case": "a", "value": 2, "unit": "ms", "limit": 1, "huge_limit": 0.5, "moved": 8, "bound": "memory"}
        for _ in range(2):
            measure.collect(cases, {"ours": [record], "eager": [{"case": "a", "value": 3, "unit": "ms"}]})
        self.assertEqual(cases["a"], {"unit": "ms", "ours": [2, 2], "theirs": {"eager": [3, 3]}, "limits": [1, 1],
                                      "huge_limits": [0.5, 0.5], "moved": 8, "bound": "memory"})


class Report(unittest.TestCase):
    ROW = {"what": "a row", "command": "c", "date": "d", "runs": 7, "loom": "one", "busy_cores": 0.1}

    def test_the_summary_counts(self):
        case = {"unit": "ms", "ours": 1, "target": "1 x peer", "verdict": MET}
        rows = {"a": self.ROW | {"cases": {"x": case, "y": case | {"bound_below": True}, "z": case | {"verdict": OPEN}}},
                "b": self.ROW | {"loom": "two", "busy_cores": 0.3, "cases": {}}, "c": self.ROW | {"failed": "why"}}
        lines = summary_lines(rows)
        for line in ("| met | 2 |", f"| of these, the lower bound below the target ({NEARLY}) | 1 |", "| open | 1 |",
                     "| of Loom one | 2 |", "| of Loom two | 1 |", "| disturbed by other programs: b | 1 |",
                     "| failed: c | 1 |"):
            self.assertIn(line, lines)

    def test_the_summary_tells_what_few_runs_agree_on(self):
        few = {"unit": "ms", "ours": 1, "target": "1 x peer", "verdict": OPEN}
        rows = {"a": self.ROW | {"cases": {"x": few, "y": few | {"few_runs": ALL_FEW}, "z": few | {"few_runs": NONE_FEW}}}}
        lines = summary_lines(rows)
        self.assertEqual(lines[lines.index("| open | 3 |"):][1:3], ["| of these, few runs: all reach it | 1 |",
                                                                   "| of these, few runs: none reaches it | 1 |"])
        self.assertEqual(lines[-5:], ["Few runs, and none reaches the target:", "", "| row | |", "| --- | --- |",
                                      "| a: z | 1 ms; target 1 x peer |"])

    def test_a_row_tells_what_disturbed_it(self):
        report = {"machine": {"cpu": "C", "date": "d", "loom": "one"}, "command": "c", "runs": 7, "rows": {}}
        quiet = row_lines("a", self.ROW | {"cases": {}, "stolen_cores": 0.01}, report)
        noisy = row_lines("a", self.ROW | {"cases": {}, "busy_cores": 0.3, "stolen_cores": 0.2}, report)
        self.assertEqual(set(noisy) - set(quiet), {"Disturbed: other programs kept 0.3 cores busy.",
                                                   "The machine below took 0.2 cores from this virtual one."})
        self.assertIn("lie in huge pages", markdown(report))


if __name__ == "__main__":
    unittest.main()
