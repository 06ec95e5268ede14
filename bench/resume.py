# SPDX-License-Identifier: Apache-2.0
"""What is still to be measured, in which order, and how long it takes: so that a report may be made in several calls."""
import hashlib
import json
import os
import re

CHANGE_BY_THEMSELVES = {"date", "loom", "gpu_clocks"}  # of the report's head; what counts of the commit is the tree
NOT_SPEED = {"LOOM_BENCH_PYTHON", "LOOM_ALLOW_RUN_AS_ROOT", "LOOM_OVERSUBSCRIBE", "LOOM_NUM_THREADS", "LOOM_PROGRESS"}
DISTURBED = 0.2  # cores that other programs had, from which on a row is measured again
ONCE = 3  # what runs once, the compiled form of a peer, takes as long as so many runs


def operations(row, cases):
    """The row's part of cases.txt."""
    group = next((word.partition("=")[2] for word in row.ours if word.startswith("group=")), None)
    found = re.search(rf"^\[{group}\]\n(.*?)(?=^\[|\Z)", cases, re.MULTILINE | re.DOTALL) if group else None
    return [line for line in found.group(1).splitlines() if line and line[0] != "#"] if found else []


def settings(row, cases, rehearse):
    """A fingerprint of what both sides are started with."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("LOOM_") and name not in NOT_SPEED}
    parts = [row.ours, row.peers, row.once, row.ranks, row.threads, row.cores, row.model, row.measure,
             operations(row, cases), row.tiny if rehearse else None, sorted(environment.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def identity(row, cases, about, tree, rehearse=False):
    """What two measurements of a row must have in common to be the same; a row's entry has it."""
    return {"tree": tree, "settings": settings(row, cases, rehearse),
            "machine": {key: value for key, value in about.items() if key not in CHANGE_BY_THEMSELVES}}


def is_whole(entry):
    return "cases" in entry and "losses" not in entry.get("dropped", {})


def is_disturbed(entry, most=DISTURBED):
    return entry.get("busy_cores", 0) > most


def times(row, runs):
    return 1 if row.slow else runs


def is_current(row, entry, same, runs):
    """Measured, or tried in vain, as it would be now."""
    return entry is not None and times(row, entry["runs"]) >= times(row, runs) and \
        all(entry.get(key) == value for key, value in same.items())


def stays(before, entry, same):
    """Whether what an earlier call measured, of the same, is better than what this one did: whole, with more runs, less
    disturbed."""
    if not before or not is_whole(before) or any(before.get(key) != value for key, value in same.items()):
        return False
    worth = lambda one: (is_whole(one), one["runs"], -one.get("busy_cores", 0))
    return worth(before) > worth(entry)


def pending(rows, entries, same_of, runs, most=DISTURBED):
    """The rows that are to be measured, the next one first. A GPU's keep their order: it is lent, and what matters most
    comes first. Of the others those that nobody measured go before those measured of another tree, of these the ones of an
    earlier day, so that short calls come by every row; what failed as it stands is tried again after all else, and last
    of all what other programs disturbed."""
    disturbed, failed, stale, lacking = [], [], [], []
    for row in rows:
        entry = entries.get(row.name)
        if is_current(row, entry, same_of(row), runs):
            if not is_whole(entry):
                failed.append(row)
            elif is_disturbed(entry, most) and not row.gpu:  # a GPU is lent for minutes, its host works for others too
                disturbed.append(row)
        elif row.gpu or not entry or not is_whole(entry):
            lacking.append(row)
        else:
            stale.append(row)
    return lacking + sorted(stale, key=lambda row: entries[row.name].get("date", "")) + failed + disturbed


def expected(row, runs, entry=None, cut=0):
    """Seconds: what an earlier report says that it took, else by the row's kind; cut: after so many it was not done."""
    if entry and is_whole(entry) and "seconds" in entry:
        guess = entry["seconds"] * times(row, runs) / times(row, entry["runs"])
    else:
        guess = row.seconds * (times(row, runs) + ONCE * len(row.once))
    return max(guess, cut)


class Left:
    """The rows that are still to be measured, in the report too: when a call is cut, it says what it owes."""

    def __init__(self, rows, report, runs, others=()):
        """others: names of rows that this call is not asked for."""
        self.others = [name for name in report.get("left", []) if name in others]
        self.rows, self.report, self.runs = list(rows), report, runs
        self.note()

    def note(self):
        self.report["left"] = [row.name for row in self.rows] + self.others

    def done(self, row):
        self.rows.remove(row)
        self.report.get("cut", {}).pop(row.name, None)
        self.note()

    def cut(self, row, seconds):
        """It was not done after so many seconds: the next call allows it more than these."""
        self.report.setdefault("cut", {})[row.name] = round(seconds, 1)

    def expected(self, row):
        name = row.name
        return expected(row, self.runs, self.report["rows"].get(name), self.report.get("cut", {}).get(name, 0))

    def seconds(self):
        return sum(map(self.expected, self.rows))
