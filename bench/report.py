# SPDX-License-Identifier: Apache-2.0
"""Runs the rows, ours and the peers' by turns, and writes medians, bounded ratios and verdicts after every row: a run
that is cut keeps what it measured, and --resume goes on from there. scripts/bench calls it."""
import argparse
import json
import pathlib
import re
import statistics
import sys
import tempfile
import time

import machine
import predictions
import resume
import sources
import stats
import table
from measure import measure
from programs import Failed, OutOfTime, Programs, Skipped
from rows import ROWS

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("filter", nargs="*", help="rows whose name contains one of these; without: all, written down")
    parser.add_argument("--build", type=pathlib.Path, required=True, help="build folder")
    parser.add_argument("--python", default="", help="a Python that has PyTorch; without: no peers but MPI")
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each side")
    parser.add_argument("--write", action="store_true", help="with a filter: replace these rows in today's report")
    parser.add_argument("--gpu", action="store_true", help="the rows of a GPU instead of the CPU's")
    parser.add_argument("--rehearse", action="store_true", help="with --gpu: tiny, without one, all peers on the CPU")
    parser.add_argument("--resume", action="store_true", help="go on with the newest report of this machine: only the rows "
                        "that it lacks, or has of another tree, machine or settings, and those that failed or were disturbed")
    parser.add_argument("--busy", type=float, default=resume.DISTURBED, help="cores that other programs may keep busy; "
                        "where it were more, --resume measures a row again")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="rows that would end later are left")
    parser.add_argument("--spent", type=float, default=0, help="seconds of these that are over already")
    parser.add_argument("--libraries", default="", help="LD_LIBRARY_PATH of Loom's program")
    parser.add_argument("--smoke", action="store_true", help="every row once, tiny, without peers: does it work?")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--command", default="scripts/bench", help="what to write down as the command")
    parser.add_argument("--again", default="", help="the command that goes on; without: the same, with --resume")
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


def growth(cases):
    """The fitted exponents of both sides, where cases lie along an x."""
    points = {"ours": [(case["x"], statistics.median(case["ours"])) for case in cases.values() if "x" in case]}
    for case in cases.values():
        for variant, values in case["theirs"].items() if "x" in case else ():
            points.setdefault(variant, []).append((case["x"], statistics.median(values)))
    return {who: value for who, found in points.items() if (value := stats.exponent(found)) is not None}


def judged(row, cases, told):
    """The summaries of what was measured, by the targets and predictions of now."""
    found = {name: stats.summary(case, row.target(name), row.once, row.beside) for name, case in cases.items()}
    for name, case in found.items():
        if text := told.of(row.name, name):
            case["predicted"] = text
    return found


def outcome_of(row, programs, given):
    """The row's entry in the report: its cases, or why there are none."""
    entry = {"what": row.what, "command": given.command, "date": given.date, "runs": given.runs, "loom": given.revision,
             **given.same_of(row)}
    started, others = time.monotonic(), machine.Others()
    try:
        cases, dropped = measure(row, programs, resume.times(row, given.runs))
    except (Skipped, Failed) as reason:
        outcome = "skipped" if isinstance(reason, Skipped) else "failed"
        print(f"bench: {row.name}: {outcome}: {reason}", file=sys.stderr, flush=True)
        return entry | others.told() | {outcome: str(reason)}
    entry |= others.told() | {"seconds": round(time.monotonic() - started, 1), "dropped": dropped, "exponents": growth(cases)}
    return entry | {"cases": judged(row, cases, given.predictions)}


def stem_of(about, given):
    """Without its ending, the report's file: today's, or the newest one to go on with."""
    slug = re.sub(r"[^a-z0-9]+", "-", about.get("gpu", about["cpu"]).lower()).strip("-")
    there = [path for path in given.out.glob(f"*-{slug}.json")
             if re.fullmatch(r"\d{4}-\d\d-\d\d", path.name.removesuffix(f"-{slug}.json"))]
    return max(there).with_suffix("") if given.resume and there else given.out / f"{about['date']}-{slug}"


def begun(about, given, stem):
    """The report to add to. One that is gone on with has today's head, and the date when it was begun."""
    report = {"command": given.command, "runs": given.runs, "machine": about, "rows": {}}
    earlier = stem.with_name(stem.name + ".json")
    if not (given.filter or given.resume) or not given.keep or not earlier.exists():
        return report
    before = json.loads(earlier.read_text(encoding="utf-8"))
    head = report | {"machine": about | {"date": before["machine"]["date"]}} if given.resume else {}
    return before | head | {"rows": before["rows"]}


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


def keep_the_better(row, entry, entries, given):
    """Goes into the report, unless what is there is better and was not asked to be replaced."""
    if given.resume and resume.stays(entries.get(row.name), entry, given.same_of(row)):
        print(f"bench: {row.name}: the earlier measurement, whole and less disturbed, stays", file=sys.stderr, flush=True)
    else:
        entries[row.name] = entry


def measure_rows(left, programs, given, keep):
    """Those of the rows for which there is time; a shorter one may fit where a longer one did not."""
    measured = {}
    for row in list(left.rows):
        begin = time.monotonic()
        if begin - given.started + left.expected(row) > given.seconds:
            continue
        print(f"bench: {row.name}: {row.what}", file=sys.stderr, flush=True)
        try:
            measured[row.name] = outcome_of(row, programs, given)
            keep_the_better(row, measured[row.name], left.report["rows"], given)
            left.done(row)
        except OutOfTime:
            print(f"bench: {row.name}: the time was over before it was done", file=sys.stderr, flush=True)
            left.cut(row, time.monotonic() - begin)
        keep()
    return measured


def what_is_left(left, failed, given):
    """The last line: what a next call would do."""
    long = [f"{row.name} about {left.expected(row):.0f} s" for row in left.rows if left.expected(row) > given.seconds]
    names = " ".join(row.name for row in left.rows)
    told = [f"left: {len(left.rows)} rows, about {left.seconds():.0f} s"] if left.rows else ["nothing is left"]
    told += [f"failed: {' '.join(failed)}"] if failed else []
    if given.keep and (left.rows or failed):
        told.append(f"to go on: {given.again or given.command + ('' if given.resume else ' --resume')}")
    told += [f"longer than --seconds {given.seconds:.0f}: {', '.join(long)}"] if long else []
    return "bench: " + "; ".join(told) + (f"; these: {names}" if names else "")


def described(given):
    """The head of a report of now; given gets what every row's entry needs."""
    given.revision, tree = sources.measured(ROOT, given.build, given.gpu)
    about = machine.describe(given.build, given.python, given.revision)
    about |= (machine.describe_gpu if given.gpu else machine.describe_cpu)(given.python)
    given.date, given.predictions = about["date"], predictions.Predictions(ROOT / "docs/benchmarks/gpu_predictions.md")
    cases = (ROOT / "bench/cases.txt").read_text(encoding="utf-8")
    given.same_of = lambda row: resume.identity(row, cases, about, tree, given.rehearse)
    return about


def judge_anew(report, told):
    """All that is there, what waits to be measured again too: targets and predictions may have changed, and the tables."""
    for row in ROWS:
        entry = report["rows"].get(row.name, {})
        if "cases" in entry:
            values = {name: case["values"] for name, case in entry["cases"].items()}
            entry |= {"what": row.what, "cases": judged(row, values, told)}


def main():
    given = arguments()
    given.started = time.monotonic() - given.spent
    if given.smoke:
        given.runs, given.python = 1, ""
    rows = chosen(given)
    given.keep = not given.smoke and (given.write or given.resume or not given.filter)
    about = described(given)
    stem = stem_of(about, given)
    report = begun(about, given, stem)
    waiting = resume.pending(rows, report["rows"], given.same_of, given.runs, given.busy) if given.resume else rows
    judge_anew(report, given.predictions)
    left = resume.Left(waiting, report, given.runs, {row.name for row in ROWS} - {row.name for row in rows})
    if not given.smoke:
        print(f"bench: {len(waiting)} of {len(rows)} rows, about {left.seconds() / 60:.0f} minutes with peers", file=sys.stderr,
              flush=True)
    keep = (lambda: write(report, stem)) if given.keep else (lambda: None)
    keep()
    with tempfile.TemporaryDirectory() as scratch:
        programs = Programs(ROOT, given.build, given.python, pathlib.Path(scratch), given.smoke, given.libraries,
                            given.rehearse, given.started + given.seconds)
        measured = measure_rows(left, programs, given, keep)
    failed = [name for name, entry in measured.items() if "failed" in entry or "losses" in entry.get("dropped", {})]
    print(table.markdown({"command": given.command, "runs": given.runs, "machine": about, "rows": measured}))
    if given.keep:
        print(f"bench: wrote {stem}.json and .md", file=sys.stderr)
    if not given.smoke:
        print(what_is_left(left, failed, given), file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    try:
        sys.exit(1 if main() else 0)
    except Failed as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
