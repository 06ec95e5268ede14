# SPDX-License-Identifier: Apache-2.0
"""One row: both sides by turns, as often as asked, and which of a peer's variants are not run to the end."""
import sys

import builds
from programs import Failed, Skipped

TRIALS = 2  # runs after which variants of a peer that are clearly slower than its best stop
CLEARLY = 1.15


def check_losses(row, results):
    """All sides must have trained the same thing: their first losses agree."""
    losses = {who: record["losses"] for who, records in results.items() for record in records if "losses" in record}
    for values in losses.values():
        for ours, theirs in zip(losses["ours"], values):
            if not abs(ours - theirs) <= row.losses * max(1, abs(theirs)):
                raise Failed(f"the losses differ, so the sides do not do the same: {losses}")


def run_once(row, programs, variants, dropped):
    """{side: records}. A variant of the peer that fails is dropped, and said to be."""
    if row.measure:
        return getattr(builds, row.measure)(programs, row)
    results = {"ours": programs.ours(row)}
    for variant in [name for name in variants if name not in dropped]:
        try:
            records = programs.peer(row, variants[variant])
        except (Failed, Skipped) as error:
            lines = str(error).strip().splitlines()
            dropped[variant] = f"failed: {lines[-1] if lines else error}"
            print(f"bench: {row.name}: {variant}: {error}", file=sys.stderr, flush=True)
            continue
        if records is not None:
            results[variant] = records
    try:
        check_losses(row, results)
    except Failed as error:
        if not row.gpu:
            raise
        dropped["losses"] = str(error)  # a GPU is lent for minutes: what was measured is kept, and the row is marked
    return results


def collect(cases, results):
    for who, records in results.items():
        for record in records:
            case = cases.setdefault(record["case"], {"unit": record["unit"], "ours": [], "theirs": {}})
            (case["ours"] if who == "ours" else case["theirs"].setdefault(who, [])).append(record["value"])
            for limit in ("limit", "huge_limit"):
                if limit in record:
                    case.setdefault(limit + "s", []).append(record[limit])
            case |= {key: record[key] for key in ("x", "bytes", "moved", "bound") if key in record}


def slower(cases, not_the_best=()):
    """The variants that are clearly behind the peer's best in all that is timed."""
    behind, ahead = set(), set()
    for case in cases.values():
        if case["unit"] == "MiB":
            continue
        rates = {name: values if case["unit"].endswith("/s") else [1 / value for value in values]
                 for name, values in case["theirs"].items()}
        best = max((min(values) for name, values in rates.items() if name not in not_the_best), default=0)
        for name, values in rates.items():
            (behind if max(values) * CLEARLY < best else ahead).add(name)
    return behind - ahead


def measure(row, programs, runs):
    """{case: {"unit", "limits", "ours": [..], "theirs": {variant: [..]}, ..}} and why variants are missing."""
    cases, dropped = {}, {}
    for run in range(runs):
        collect(cases, run_once(row, programs, row.peers | ({} if run else row.once), dropped))
        if run + 1 == TRIALS < runs:
            behind = slower(cases, {*row.once, *row.beside})
            dropped |= {name: f"clearly slower in {TRIALS} runs" for name in sorted(behind - row.once.keys() - dropped.keys())}
    return cases, dropped
