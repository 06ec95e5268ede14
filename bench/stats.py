# SPDX-License-Identifier: Apache-2.0
"""Medians with bounds that assume nothing about how times are distributed, and what they say about a target."""
import dataclasses
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


def extremes(values):
    """Where one side ran once: whatever the other did, it bounds nothing."""
    return Bounded(statistics.median(values), min(values), max(values), False)


MET, OPEN, BEHIND = "met", "open", "not met"
NEARLY = "met, bound below"  # the median is at the target, its lower bound is not
ALL_FEW, NONE_FEW = "all reach it", "none reaches it"  # of runs too few to bound anything; the verdict is open
IN_MEMORY = 1 << 24  # bytes; caches may hold fewer, so that the limit of memory is none (micro.cpp)


def judged(value, least):
    """Not met only when the upper bound is below; open where the median is below but the bound is not. Too few runs bound
    nothing, but it counts whether they agree."""
    if not value.sure:
        return ALL_FEW if value.low >= least else NONE_FEW if value.high < least else OPEN
    if value.median >= least:
        return MET if value.low >= least else NEARLY
    return BEHIND if value.high < least else OPEN


@dataclass(frozen=True)
class Target:
    """What is asked of a case: at least `ratio` of the peer, at least `limit` of the physical limit, at most `most`
    units, at most `over` units more than the peer."""
    ratio: float = 0
    limit: float = 0
    most: float = 0
    over: float = 0
    either: bool = False  # one of the two is enough
    in_memory: bool = False  # the limit counts where at least IN_MEMORY bytes must move

    def of(self, case):
        """What of it counts for this case."""
        small = self.in_memory and case.get("moved", IN_MEMORY if "limits" in case else 0) < IN_MEMORY
        return dataclasses.replace(self, limit=0) if small else self

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
        order = [MET, NEARLY, ALL_FEW, OPEN, NONE_FEW, BEHIND]  # of two parts the worse counts, where either will do the better
        order = order if self.either else order[::-1]
        return next((verdict for verdict in order if verdict in verdicts), "")


def best_of(values, more_is_better):
    return [max(values) if more_is_better else min(values)] * len(values)


def limits_of(case, more_is_better):
    """Those that each run is held against. What the processor computes at most does not change, so it is the best of all
    runs; how fast memory is, or communication, counts as it was in the same run."""
    limits = case.get("limits")
    if limits and case.get("bound", "products" if case["unit"] == "GFLOP/s" else "") == "products":
        return best_of(limits, more_is_better)
    return limits


def judgement(target, case, ratio, share, above):
    target = target.of(case)
    below = bounded([-value for value in case["ours"]])
    verdict = target.verdict(ratio, share, below, above)
    told = {NEARLY: {"verdict": MET, "bound_below": True}} | \
        {few: {"verdict": OPEN, "few_runs": few} for few in (ALL_FEW, NONE_FEW)}
    return {"target": target.text()} | told.get(verdict, {"verdict": verdict})


def full(theirs, runs, once):
    """What can be compared with each of our runs: what ran as often, and what is meant to run once, again and again."""
    return {name: values[:1] * runs if name in once else values for name, values in theirs.items()
            if len(values) == runs or name in once}


def summary(case, target, once=(), beside=()):
    """One case: medians, the best variant of the peers, the bounded ratio of the pairs of runs (above 1 where ours is
    better), the share of the limit, the verdict. Variants that ran once bound nothing; those beside do not count."""
    more_is_better = case["unit"].endswith("/s")

    def compare(ours, other, bounds=bounded):
        return bounds([a / b if more_is_better else b / a for a, b in zip(ours, other)])

    ours, ratio, share, above = case["ours"], None, None, None
    result = {"unit": case["unit"], "ours": statistics.median(ours)}
    result |= {"bytes": case["bytes"]} if "bytes" in case else {}
    if limits := limits_of(case, more_is_better):
        share = compare(ours, limits)
        result |= {"limit": statistics.median(limits), "share": share.as_json()}
    if huge := case.get("huge_limits"):
        result |= {"huge_limit": statistics.median(huge), "huge_share": compare(ours, huge).as_json()}
    theirs = full(case["theirs"], len(ours), once)
    if told := {name: statistics.median(theirs.pop(name)) for name in beside if name in theirs}:
        result["beside"] = told
    if theirs:
        best = max if more_is_better else min
        variant = best(theirs, key=lambda name: statistics.median(theirs[name]))
        bounds = extremes if variant in once else bounded
        ratio = compare(ours, theirs[variant], bounds)
        above = bounds([b - a for a, b in zip(ours, theirs[variant])])
        result |= {"theirs": statistics.median(theirs[variant]), "variant": variant, "ratio": ratio.as_json()}
    if target:
        result |= judgement(target, case, ratio, share, above)
    return result | {"values": case}


def exponent(points):
    """Of the power of x that fits [(x, y)] best."""
    if len(points) < 2:
        return None
    slope, _ = statistics.linear_regression([math.log(x) for x, _ in points], [math.log(y) for _, y in points])
    return slope
