# SPDX-License-Identifier: Apache-2.0
"""Medians with bounds that assume nothing about how times are distributed, and what they say about a target."""
import math
import statistics
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Bounded:
    """A median and an interval that holds the true one with at least the confidence; not sure: too few values."""
    median: float
    low: float
    high: float
    sure: bool

    def as_json(self):
        return {"median": self.median, "low": self.low, "high": self.high, "sure": self.sure}


def bounded(values):
    """Order statistics: the median lies outside the k-th smallest and largest with probability 2 P(Bin(n, 1/2) < k).
    Six values are the fewest that bound it; of seven the bounds are the least and the greatest."""
    ordered, n = sorted(values), len(values)
    k, sure = 1, False
    for trial in range(1, n // 2 + 1):
        if 1 - 2 * sum(math.comb(n, i) for i in range(trial)) / 2**n >= CONFIDENCE:
            k, sure = trial, True
    return Bounded(statistics.median(ordered), ordered[k - 1], ordered[n - k], sure)


MET, OPEN, BEHIND = "met", "open", "not met"


def judged(value, least):
    """Not met only when the upper bound is below; open where the median is below but the bound is not."""
    if value.median >= least:
        return MET
    return BEHIND if value.sure and value.high < least else OPEN


@dataclass(frozen=True)
class Target:
    """What issue 3 asks of a case: at least `ratio` of the peer, at least `limit` of the physical limit, at most `most`
    units, at most `over` units more than the peer."""
    ratio: float = 0
    limit: float = 0
    most: float = 0
    over: float = 0
    either: bool = False  # one of the two is enough

    def text(self):
        parts = [f"{self.ratio:g} x peer"] if self.ratio else []
        parts += [f"{self.limit:.0%} of the limit"] if self.limit else []
        parts += [f"at most {self.most:g}"] if self.most else []
        parts += [f"at most {self.over:g} over the peer"] if self.over else []
        return (" or " if self.either else ", ").join(parts)

    def verdict(self, ratio, share, below, above):
        """Of bounded values: the ratio, the share of the limit, minus the value, minus what it is above the peer; None
        where there is no peer, no limit."""
        parts = ((ratio, self.ratio), (share, self.limit), (below, -self.most), (above, -self.over))
        verdicts = [judged(value, least) if value else OPEN for value, least in parts if least]
        order = [MET, OPEN, BEHIND] if self.either else [BEHIND, OPEN, MET]
        return next((verdict for verdict in order if verdict in verdicts), "")


def summary(case, target):
    """One case: medians, the best variant of the peers, the bounded ratio of the pairs of runs (above 1 where ours is
    better), the share of the limit, the verdict."""
    more_is_better = case["unit"].endswith("/s")

    def compare(ours, other):
        return bounded([a / b if more_is_better else b / a for a, b in zip(ours, other)])

    ours, ratio, share, above = case["ours"], None, None, None
    result = {"unit": case["unit"], "ours": statistics.median(ours)}
    result |= {"bytes": case["bytes"]} if "bytes" in case else {}
    if case.get("limits"):
        share = compare(ours, case["limits"])
        result |= {"limit": statistics.median(case["limits"]), "share": share.as_json()}
    theirs = {name: values for name, values in case["theirs"].items() if len(values) == len(ours)}
    if theirs:
        best = max if more_is_better else min
        variant = best(theirs, key=lambda name: statistics.median(theirs[name]))
        ratio = compare(ours, theirs[variant])
        above = bounded([b - a for a, b in zip(ours, theirs[variant])])
        result |= {"theirs": statistics.median(theirs[variant]), "variant": variant, "ratio": ratio.as_json()}
    if target:
        below = bounded([-value for value in ours])
        result |= {"target": target.text(), "verdict": target.verdict(ratio, share, below, above)}
    return result | {"values": case}


def exponent(points):
    """Of the power of x that fits [(x, y)] best."""
    if len(points) < 2:
        return None
    slope, _ = statistics.linear_regression([math.log(x) for x, _ in points], [math.log(y) for _, y in points])
    return slope
