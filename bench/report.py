# SPDX-License-Identifier: Apache-2.0
"""Runs the rows, ours and the peer's by turns, and writes medians, ratios and their spread after every row: a run that
is cut keeps what it measured. scripts/bench calls it."""
import argparse
import json
import pathlib
import re
import statistics
import sys
import tempfile

import machine
import table
from programs import Failed, Programs, Skipped
from rows import ROWS

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("filter", nargs="*", help="rows whose name contains one of these; without: all, written down")
    parser.add_argument("--build", type=pathlib.Path, required=True, help="build folder")
    parser.add_argument("--python", default="", help="a Python that has PyTorch; without: no peers but MPI")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each side")
    parser.add_argument("--smoke", action="store_true", help="every row once, tiny, without peers: does it work?")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--command", default="scripts/bench", help="what to write down as the command")
    return parser.parse_args()


def check_losses(row, results):
    """Both sides must have trained the same thing: their first losses agree."""
    losses = {who: record["losses"] for who, records in results.items() for record in records if "losses" in record}
    for who, values in losses.items():
        for ours, theirs in zip(losses["ours"], values):
            if abs(ours - theirs) > 1e-4 * max(1, abs(theirs)):
                raise Failed(f"the losses differ, so the sides do not do the same: {losses}")


def measure(row, programs, runs):
    """{case: {"unit", "limit", "ours": [..], "theirs": {variant: [..]}}}; a run of each side in turn."""
    cases = {}
    for _ in range(runs):
        results = {"ours": programs.ours(row)}
        for variant, more in row.variants.items() if row.peer else ():
            records = programs.peer(row, more)
            if records is not None:
                results[variant] = records
        check_losses(row, results)
        for who, records in results.items():
            for record in records:
                case = cases.setdefault(record["case"], {"unit": record["unit"], "ours": [], "theirs": {}})
                side = case["ours"] if who == "ours" else case["theirs"].setdefault(who, [])
                side.append(record["value"])
                if "limit" in record:
                    case.setdefault("limits", []).append(record["limit"])
    return cases


def summary(case):
    """Medians; the peer's best variant; the ratio of each pair of runs, above 1 where ours is better."""
    more_is_better = case["unit"].endswith("/s")
    result = {"unit": case["unit"], "ours": statistics.median(case["ours"])}
    if "limits" in case:
        result["limit"] = statistics.median(case["limits"])
    if case["theirs"] and case["ours"]:
        best = max if more_is_better else min
        variant = best(case["theirs"], key=lambda name: statistics.median(case["theirs"][name]))
        theirs = case["theirs"][variant]
        ratios = [a / b if more_is_better else b / a for a, b in zip(case["ours"], theirs)]
        result |= {"theirs": statistics.median(theirs), "variant": variant, "ratio": statistics.median(ratios),
                   "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return result


def outcome_of(row, programs, runs):
    """The row's entry in the report: its cases, or why there are none."""
    try:
        cases = measure(row, programs, runs)
    except (Skipped, Failed) as reason:
        outcome = "skipped" if isinstance(reason, Skipped) else "failed"
        print(f"bench: {row.name}: {outcome}: {reason}", file=sys.stderr, flush=True)
        return {"what": row.what, outcome: str(reason)}
    return {"what": row.what, "cases": {name: summary(case) | {"values": case} for name, case in cases.items()}}


def write(report, folder):
    """Both forms of the report, replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", report["machine"]["cpu"].lower()).strip("-")
    stem = folder / f"{report['machine']['date']}-{slug}"
    for ending, text in ((".json", json.dumps(report, indent=1) + "\n"), (".md", table.markdown(report))):
        whole = stem.with_name(stem.name + ending)
        part = whole.with_name(whole.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(whole)
    return stem


def main():
    given = arguments()
    if given.smoke:
        given.runs, given.python = 1, ""
    rows = [row for row in ROWS if not given.filter or any(text in row.name for text in given.filter)]
    if not rows:
        sys.exit("no such row; there are: " + " ".join(row.name for row in ROWS))
    about = machine.describe(ROOT, given.build, given.python)
    report = {"command": given.command, "runs": given.runs, "machine": about, "busy_cores": {}, "rows": {}}
    keep = not (given.smoke or given.filter)
    with tempfile.TemporaryDirectory() as scratch:
        programs = Programs(ROOT, given.build, given.python, pathlib.Path(scratch), given.smoke)
        report["sizes"] = programs.sizes()
        for row in rows:
            report["busy_cores"][row.name] = machine.busy_cores()
            print(f"bench: {row.name}: {row.what}", file=sys.stderr, flush=True)
            report["rows"][row.name] = outcome_of(row, programs, given.runs)
            if keep:
                stem = write(report, given.out)
    print(table.markdown(report))
    if keep:
        print(f"bench: wrote {stem}.json and .md", file=sys.stderr)
    return any("failed" in row for row in report["rows"].values())


if __name__ == "__main__":
    try:
        sys.exit(1 if main() else 0)
    except Failed as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
