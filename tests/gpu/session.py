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


class Session:
    """A phase: its checks, until its time is over."""

    def __init__(self, phase, folder, seconds):
        self.phase, self.folder, self.end = phase, folder, time.monotonic() + seconds
        self.results, self.lock = [], threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def left(self):
        return self.end - time.monotonic()

    def told(self, check, result, seconds, output=""):
        name = f"{self.phase}/{check.name}"
        entry = {"check": name, "verdict": result.verdict, "seconds": round(seconds, 1), "note": result.note} | result.data
        with self.lock:
            self.results.append(entry)
            with open(self.folder / "report.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            if output:
                with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
                    file.write(f"=== {name}\n{output[-200_000:]}\n")
            print(line_of(entry), flush=True)
        return result

    def run(self, check):
        if check.without:
            return self.told(check, Result(SKIP, check.without), 0)
        limit = min(check.seconds, self.left())
        if limit < LEAST:
            return self.told(check, Result(SKIP, "no time was left"), 0)
        started = time.monotonic()
        code, output = finished(check.command, os.environ | check.environment, limit)
        if code is None:
            result = Result(FAIL, f"not done after {limit:.0f} s")
        else:
            try:
                result = (check.read or doctest_result)(code, output)
            except Exception as error:  # what a tool prints may be anything
                result = Result(FAIL, f"its output is not understood: {error!r}")
        shown = " ".join(map(str, check.command))
        return self.told(check, result, time.monotonic() - started, f"{check.environment} {shown}\n{output}")

    def run_all(self, checks, jobs):
        """Side by side, then those that run alone, one by one."""
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self.run, [check for check in checks if not check.alone]))
        for check in checks:
            if check.alone:
                self.run(check)


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
