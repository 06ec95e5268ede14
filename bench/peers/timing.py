# SPDX-License-Identifier: Apache-2.0
"""Times of repeated steps, as bench/timing.h and bench/device.h, and the line that reports them, as bench/record.h."""
import json
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


SAMPLES = 5


def seconds_between_rests(wait, count, call):
    """Of `count` calls, from a device at rest to a device at rest."""
    wait()
    start = time.perf_counter()
    for i in range(count):
        call(i)
    wait()
    return time.perf_counter() - start


def seconds_on_device(wait, calls, at_least):
    """As bench/device.h's seconds_on."""
    for call in calls:
        call()
    turn = lambda i: calls[i % len(calls)]()
    once = seconds_between_rests(wait, len(calls), turn) / len(calls)
    count = max(1, min(int(at_least / once), 1_000_000))
    return statistics.median_high(seconds_between_rests(wait, count, turn) / count for _ in range(SAMPLES))


def time_steps_on_device(wait, warmup, steps, step):
    """Median and mean seconds of a step, as bench/device.h's time_steps_on."""
    for _ in range(warmup):
        step()
    each = max(1, steps // SAMPLES)
    taken = [seconds_between_rests(wait, each, lambda _: step()) / each for _ in range(0, steps, each)]
    return statistics.median_high(taken), statistics.fmean(taken)


def seconds_of_a_call(call, at_least):
    """Mean over as many calls as fill a time, as google-benchmark does."""
    call()
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        took = time.perf_counter() - start
        if took >= at_least:
            return took / calls
        calls = max(calls + 1, min(10 * calls, int(calls * 1.4 * at_least / max(took, 1e-9))))


def record(case, value, unit, **more):
    print(json.dumps({"case": case, "value": value, "unit": unit, **more}), flush=True)


def main(run):
    run(options(sys.argv[1:]))
