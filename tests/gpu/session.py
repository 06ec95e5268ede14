# SPDX-License-Identifier: Apache-2.0
"""Runs checks with time limits, a line for each as it ends, and a table of all."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
LEAST = 5  # seconds: with less, a check is not begun
PAGE = 60  # lines of the table


@dataclass
class Result:
    verdict: str
    note: str = ""
    data: dict = field(default_factory=dict)


@dataclass
class Check:
    name: str
    command: list = field(default_factory=list)
    seconds: float = 120  # at most
    environment: dict = field(default_factory=dict)  # beside the process's
    alone: bool = False  # nothing else runs meanwhile
    without: str = ""  # why it cannot run
    read: object = None  # (exit code, output) -> Result; without: by the code, and what doctest says


def doctest_result(code, output):
    skipped = [line.partition("skipped: ")[2] for line in output.splitlines() if "skipped: " in line]
    counts = next((line for line in output.splitlines() if "test cases:" in line), "")
    if code == 0 and "test cases: 0 " in " ".join(counts.split()):
        return Result(SKIP, "this build has no such test")
    if code == 0:
        return Result(SKIP, skipped[0]) if skipped else Result(PASS)
    if code == 77:
        return Result(SKIP, skipped[-1] if skipped else "")
    wrong = [line.strip() for line in output.splitlines() if "ERROR" in line or line.strip().startswith(("values:", "logged:"))]
    tail = wrong[:3] or output.strip().splitlines()[-3:]
    return Result(FAIL, f"exit code {code}; " + "; ".join(tail)[:400])


def entries(path):
    """Those of a report; a line that was cut is none."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


class Session:
    """A phase: its checks, until its time is over. Given what they say something of (a fingerprint), those that an earlier
    call saw pass of the same are not run again, unless it shall be fresh."""

    def __init__(self, phase, folder, seconds):
        self.phase, self.folder, self.seconds, self.end = phase, folder, seconds, time.monotonic() + seconds
        self.results, self.lock = [], threading.Lock()
        self.left_out = {}  # what there was no time for: the seconds that it may take where it was begun, else 0
        self.of, self.earlier, self.late = "", {}, {}  # late: what comes after all else, cut (1) or failed (2) before
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "report.jsonl"
        if path.exists() and not path.read_bytes().endswith(b"\n"):  # a call was ended as it wrote
            with open(path, "a", encoding="utf-8") as file:
                file.write("\n")

    def left(self):
        return self.end - time.monotonic()

    def written(self, entry):
        with open(self.folder / "report.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def go_on(self, of, fresh):
        """From now on checks are of this; fresh: what passed before counts no more, for later calls neither."""
        self.of = of
        if fresh:
            self.written({"fresh": self.phase, "of": of})
        for entry in entries(self.folder / "report.jsonl"):
            if entry.get("of") != of:
                continue
            if entry.get("fresh") == self.phase:
                self.earlier.clear()
                self.late.clear()
            elif entry.get("verdict") == PASS:
                self.earlier[entry["check"]] = entry
                self.late.pop(entry["check"], None)
            elif entry.get("verdict") == FAIL:
                self.earlier.pop(entry["check"], None)
                self.late[entry["check"]] = 2
            elif "cut" in entry:
                self.late[entry["check"]] = 1

    def told_again(self, entry):
        with self.lock:
            self.results.append(entry | {"note": f"(earlier) {entry['note']}".rstrip()})
            print(line_of(self.results[-1]), flush=True)
        return Result(PASS, entry["note"])

    def told(self, check, result, seconds, output=""):
        name = f"{self.phase}/{check.name}"
        entry = {"check": name, "verdict": result.verdict, "seconds": round(seconds, 1), "note": result.note} | result.data
        if self.of:
            entry["of"] = self.of
        with self.lock:
            self.results.append(entry)
            self.written(entry)
            if output:
                with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
                    file.write(f"=== {name}\n{output[-200_000:]}\n")
            print(line_of(entry), flush=True)
        return result

    def cut(self, check, after):
        """It was not done because the phase's time was over, which says nothing of it: a later call runs it."""
        self.left_out[check.name] = check.seconds if after else 0
        if not after:
            return Result(SKIP, "no time was left")
        return Result(SKIP, f"left, not done after {after:.0f} s", {"cut": round(after, 1)})

    def run(self, check):
        if check.without:
            return self.told(check, Result(SKIP, check.without), 0)
        if passed := self.earlier.get(f"{self.phase}/{check.name}"):
            return self.told_again(passed)
        limit = min(check.seconds, self.left())
        if limit < LEAST:
            return self.told(check, self.cut(check, 0), 0)
        started = time.monotonic()
        code, output = finished(check.command, os.environ | check.environment, limit)
        if code is None and limit < check.seconds:
            result = self.cut(check, limit)
        elif code is None:
            result = Result(FAIL, f"not done after {limit:.0f} s")
        else:
            try:
                result = (check.read or doctest_result)(code, output)
            except Exception as error:  # what a tool prints may be anything
                result = Result(FAIL, f"its output is not understood: {error!r}")
        shown = " ".join(map(str, check.command))
        return self.told(check, result, time.monotonic() - started, f"{check.environment} {shown}\n{output}")

    def run_all(self, checks, jobs):
        """Those that run alone, one by one, then the rest side by side: the long ones first, while there is time. What an
        earlier call began and did not end comes after the rest, so that each call gets further; last what failed."""
        for late in range(3):
            now = [check for check in checks if self.late.get(f"{self.phase}/{check.name}", 0) == late]
            for check in now:
                if check.alone:
                    self.run(check)
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(self.run, [check for check in now if not check.alone]))


def finished(command, environment, seconds):
    """Exit code, None where the time was over, and what was printed. Its children end with it."""
    try:
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
    except OSError as error:
        return 127, str(error)
    try:
        output = process.communicate(timeout=seconds)[0]
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def line_of(entry):
    return f"{entry['verdict']} {entry['check']:<48} {entry['seconds']:6.1f} s  {entry['note']}".rstrip()


def table(results):
    """What failed first; of the rest as many as fit on the page."""
    order = {FAIL: 0, SKIP: 1, PASS: 2}
    lines = [line_of(entry)[:200] for entry in sorted(results, key=lambda entry: order[entry["verdict"]])]
    if len(lines) > PAGE:
        lines = [*lines[:PAGE], f".. and {len(lines) - PAGE} more"]
    counts = ", ".join(f"{sum(entry['verdict'] == verdict for entry in results)} {verdict}" for verdict in order)
    return "\n".join(["", *lines, counts])


def fail(text):
    sys.exit(f"gpu: {text}")
