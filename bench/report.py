# SPDX-License-Identifier: Apache-2.0
"""Runs the rows, ours and the peers' by turns, and writes medians, bounded ratios and verdicts after every row: a run
that is cut keeps what it measured. scripts/bench calls it."""
import argparse
import json
import pathlib
import re
import statistics
import sys
import tempfile
import time

import builds
import machine
import predictions
import stats
import table
from programs import Failed, Programs, Skipped
from rows import ROWS

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRIALS = 2  # runs after which variants of a peer that are clearly slower than its best stop
CLEARLY = 1.15


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("filter", nargs="*", help="rows whose name contains one of these; without: all, written down")
    parser.add_argument("--build", type=pathlib.Path, required=True, help="build folder")
    parser.add_argument("--python", default="", help="a Python that has PyTorch; without: no peers but MPI")
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each side")
    parser.add_argument("--write", action="store_true", help="with a filter: replace these rows in today's report")
    parser.add_argument("--gpu", action="store_true", help="the rows of a GPU instead of the CPU's")
    parser.add_argument("--rehearse", action="store_true", help="with --gpu: tiny, without one, all peers on the CPU")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="rows that would begin later are left out")
    parser.add_argument("--libraries", default="", help="LD_LIBRARY_PATH of Loom's program")
    parser.add_argument("--smoke", action="store_true", help="every row once, tiny, without peers: does it work?")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--command", default="scripts/bench", help="what to write down as the command")
    return parser.parse_args()


def chosen(given):
    def wanted(row):
        if row.gpu != given.gpu:
            return False
        if row.slow and row.name not in given.filter or given.smoke and not row.smoke:
            return False
        return not given.filter or any(text in row.name for text in given.filter)
    rows = [row for row in ROWS if wanted(row)]
    if not rows:
        sys.exit("no such row; there are: " + " ".join(row.name for row in ROWS))
    return rows


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
        except Failed as error:
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
            if "limit" in record:
                case.setdefault("limits", []).append(record["limit"])
            case |= {key: record[key] for key in ("x", "bytes") if key in record}


def slower(cases):
    """The variants that are clearly behind the peer's best in all that is timed."""
    behind, ahead = set(), set()
    for case in cases.values():
        if case["unit"] == "MiB":
            continue
        rates = {name: values if case["unit"].endswith("/s") else [1 / value for value in values]
                 for name, values in case["theirs"].items()}
        best = max((min(values) for values in rates.values()), default=0)
        for name, values in rates.items():
            (behind if max(values) * CLEARLY < best else ahead).add(name)
    return behind - ahead


def measure(row, programs, runs):
    """{case: {"unit", "limits", "ours": [..], "theirs": {variant: [..]}}} and why variants are missing."""
    cases, dropped = {}, {}
    for run in range(runs):
        collect(cases, run_once(row, programs, row.peers | ({} if run else row.once), dropped))
        if run + 1 == TRIALS < runs:
            dropped |= {name: f"clearly slower in {TRIALS} runs" for name in slower(cases) if name not in dropped}
    for case in cases.values():  # what ran once is compared with each of ours
        case["theirs"] |= {name: values * runs for name, values in case["theirs"].items()
                           if name in row.once and len(values) == 1}
    return cases, dropped


def growth(cases):
    """The fitted exponents of both sides, where cases lie along an x."""
    points = {"ours": [(case["x"], statistics.median(case["ours"])) for case in cases.values() if "x" in case]}
    for case in cases.values():
        for variant, values in case["theirs"].items() if "x" in case else ():
            points.setdefault(variant, []).append((case["x"], statistics.median(values)))
    return {who: value for who, found in points.items() if (value := stats.exponent(found)) is not None}


def outcome_of(row, programs, given):
    """The row's entry in the report: its cases, or why there are none."""
    if time.monotonic() - given.started + row.seconds * given.runs > given.seconds:
        return {"what": row.what, "command": given.command, "date": given.date, "runs": given.runs,
                "loom": given.revision, "skipped": "no time was left"}
    entry = {"what": row.what, "command": given.command, "date": given.date, "runs": given.runs,
             "loom": given.revision, "busy_cores": machine.busy_cores()}
    started = time.monotonic()
    try:
        cases, dropped = measure(row, programs, 1 if row.slow else given.runs)
    except (Skipped, Failed) as reason:
        outcome = "skipped" if isinstance(reason, Skipped) else "failed"
        print(f"bench: {row.name}: {outcome}: {reason}", file=sys.stderr, flush=True)
        return entry | {outcome: str(reason)}
    entry |= {"seconds": round(time.monotonic() - started, 1), "dropped": dropped, "exponents": growth(cases)}
    entry["cases"] = {name: stats.summary(case, row.target(name)) for name, case in cases.items()}
    for name, case in entry["cases"].items():
        if told := given.predictions.of(row.name, name):
            case["predicted"] = told
    return entry


def stem_of(about, folder):
    slug = re.sub(r"[^a-z0-9]+", "-", about.get("gpu", about["cpu"]).lower()).strip("-")
    return folder / f"{about['date']}-{slug}"


def write(report, stem):
    """Both forms of the report, replaced whole."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    order = {row.name: i for i, row in enumerate(ROWS)}
    report["rows"] = dict(sorted(report["rows"].items(), key=lambda item: order.get(item[0], len(order))))
    for ending, text in ((".json", json.dumps(report, indent=1) + "\n"), (".md", table.markdown(report))):
        whole = stem.with_name(stem.name + ending)
        part = whole.with_name(whole.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(whole)


def main():
    given = arguments()
    given.started = time.monotonic()
    if given.smoke:
        given.runs, given.python = 1, ""
    rows = chosen(given)
    about = machine.describe(ROOT, given.build, given.python)
    if given.gpu:
        about |= machine.describe_gpu(given.python)
    given.predictions = predictions.Predictions(ROOT / "docs/benchmarks/gpu_predictions.md")
    given.date, given.revision = about["date"], about["loom"]
    keep = not given.smoke and (given.write or not given.filter)
    stem = stem_of(about, given.out)
    report = {"command": given.command, "runs": given.runs, "machine": about, "rows": {}}
    earlier = stem.with_name(stem.name + ".json")
    if given.filter and keep and earlier.exists():
        report = json.loads(earlier.read_text(encoding="utf-8"))
    if not given.smoke:
        minutes = sum(row.seconds * (1 if row.slow else given.runs) for row in rows) / 60
        print(f"bench: {len(rows)} rows, about {minutes:.0f} minutes with peers", file=sys.stderr, flush=True)
    measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        programs = Programs(ROOT, given.build, given.python, pathlib.Path(scratch), given.smoke, given.libraries,
                            given.rehearse)
        for row in rows:
            print(f"bench: {row.name}: {row.what}", file=sys.stderr, flush=True)
            measured[row.name] = outcome_of(row, programs, given)
            if keep:
                report["rows"] |= {row.name: measured[row.name]}
                write(report, stem)
    print(table.markdown(report | {"command": given.command, "runs": given.runs, "machine": about, "rows": measured}))
    if keep:
        print(f"bench: wrote {stem}.json and .md", file=sys.stderr)
    return any("failed" in row or "losses" in row.get("dropped", {}) for row in measured.values())


if __name__ == "__main__":
    try:
        sys.exit(1 if main() else 0)
    except Failed as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
