#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The bounds and verdicts of the benchmark's report.

usage: bench_stats.py SOURCE_ROOT
"""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(sys.argv.pop(1)) / "bench"))

from stats import BEHIND, MET, OPEN, Bounded, Target, bounded, exponent, summary  # noqa: E402
from table import case_line  # noqa: E402


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


if __name__ == "__main__":
    unittest.main()
