# SPDX-License-Identifier: Apache-2.0
"""Times of repeated steps and calls, as bench/timing.h and bench/device.h, and the line that reports them, as bench/record.h."""
import itertools
import json
import math
import statistics
import sys
import time


def options(given):
    """key=value pairs of the command line."""
    return dict(argument.split("=", 1) for argument in given)


def time_steps(warmup, steps, step):
    """Median and mean seconds of a step."""
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median_high(seconds), statistics.fmean(seconds)


WINDOWS = 5


def window(calls, count, at_least, rest):
    """Seconds of one of at least `count` calls by turns, that fill `at_least` seconds; rest() returns when none is at work."""
    done = seconds = 0
    rest()
    start = time.perf_counter()
    while not done or seconds < at_least:
        for call in itertools.islice(itertools.cycle(calls), count):
            call()
        rest()
        done += count
        seconds = time.perf_counter() - start
    return seconds / done


def seconds_of_a_call(calls, warm_up, at_least, rest=lambda: None):
    """After each has run once, and then all for `warm_up` seconds, the median of windows of at least `at_least` seconds and
    a call each, so that a window in which the machine stood still is no result."""
    for call in calls:
        call()
    count, warm = len(calls), 0
    while True:
        once = window(calls, count, 0, rest)
        warm += once * count
        fitting = min(max(math.ceil(1.1 * at_least / max(once, 1e-9)), 1), 1_000_000)
        if warm >= warm_up:
            break
        count = min(2 * count, fitting)
    return statistics.median(window(calls, fitting, at_least, rest) for _ in range(WINDOWS))


def time_steps_on_device(wait, warmup, steps, step):
    """Median and mean seconds of a step, as bench/device.h's time_steps_on."""
    for _ in range(warmup):
        step()
    each = max(1, steps // WINDOWS)
    taken = [window([step], each, 0, wait) for _ in range(0, steps, each)]
    return statistics.median_high(taken), statistics.fmean(taken)


def record(case, value, unit, **more):
    print(json.dumps({"case": case, "value": value, "unit": unit, **more}), flush=True)


def main(run):
    run(options(sys.argv[1:]))
