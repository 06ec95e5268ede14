#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ends ranks in the wrong way and looks at what becomes of the job: over within seconds, the first cause printed.

usage: faults.py MPIEXEC PROGRAMS_FOLDER [CASE...]
"""
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

RECV = r"\[rank 0\] rank 1 has ended, this rank waits for it in recv #0 f32\[10\] from 1 tag 7\n"
SEND = r"\[rank 0\] rank 1 has ended, this rank waits for it in send #0 f32\[4000000\] to 1 tag 7\n"
VANISHED = r"exited without calling .*finalize|exiting improperly"

# case: (ranks, exit status or None for any but 0, pattern that the output must contain, seconds it may take)
FAULTS = {
    "clean": (2, 0, r"^$", 10),
    "kill": (2, None, r"rank 1 .* exited on signal 9", 5),
    "kill_in_place": (3, None, r"rank 1 .* exited on signal 9", 5),
    "segfault": (2, None, r"rank 1 .* exited on signal 11", 5),
    "throw": (3, 1, r"\[rank 1\] disk full", 5),
    "caught": (3, 1, r"caught: disk full", 6),
    "throw_in_group": (3, 1, r"\[rank 1\] not a number", 5),
    "caught_in_group": (3, 1, r"caught: not a number", 7),
    "all": (3, 1, r"(caught: rank 1: no such file\s+){3}", 6),
    "abort": (3, 1, r"\[rank 1\] no space left", 5),
    "early": (3, 1, r"\[rank \d\] rank 1 has ended, this rank waits for it in all_reduce #3 f32\[1000\] sum", 5),
    "exit": (3, 1, r"\[rank \d\] rank 1 has ended, this rank waits for it in all_reduce #3 f32\[1000\] sum", 5),
    "exit_split": (3, 1, r"\[rank \d\] rank 1 has ended, this rank waits for it in barrier #3", 5),
    "recv_early": (2, 1, RECV, 5),
    "recv_exit": (2, 1, RECV, 5),
    "recv_exit3": (2, None, RECV, 5),
    "recv_kill": (2, None, r"rank 1 .* exited on signal 9", 5),
    "recv_vanish": (2, None, VANISHED, 5),
    "recv_throw": (2, 1, r"\[rank 1\] disk full\n", 5),
    "recv_abort": (3, 1, r"\[rank 1\] no space left\n", 5),
    "late_recv": (2, 42, r"\[rank 0\] timeout after 1 s in recv #0 f32\[10\] from 1 tag 7\n", 6),
    "recv_both_exit": (2, 1, r"this rank waits for it in recv #1 f32\[10\] from 1 tag 8\n", 5),
    "send_early": (2, 1, SEND, 5),
    "send_exit": (2, 1, SEND, 5),
    "send_exit3": (2, None, SEND, 5),
    "send_kill": (2, None, r"rank 1 .* exited on signal 9", 5),
    "send_vanish": (2, None, VANISHED, 5),
    "sent_small_early": (2, 0, r"^$", 10),
    "sent_small_exit": (2, 0, r"^$", 10),
    "sent_large_exit": (2, 0, r"^$", 10),
    "never_started": (3, 42, r"\[rank \d\] timeout after 1 s in starting MPI: not all ranks of the job have come", 6),
    "never": (3, 42, r"\[rank \d\] timeout after 1 s in building a communicator; missing: rank 1\s", 6),
    "never_again": (3, 1, r"\[rank \d\] rank 1 has ended, this rank waits for it to build a communicator", 5),
    "mismatch": (3, 1, r"collective mismatch: rank 0 is in all_reduce #3 f32\[5\] sum, "
                       r"rank 1 is in all_reduce #3 f32\[20\] sum", 5),
    "late_split": (3, 42, r"\[rank \d\] timeout after 1 s in barrier #3; rank 1 is missing ", 6),
    "late_node": (3, 42, r"\[rank \d\] timeout after 1 s in barrier #3; rank 1 is missing ", 6),
    "late": (3, 42, r"\[rank \d\] timeout after 1 s in all_reduce #3 f32\[1000\] sum; rank 1 is missing "
                    r"\(its last: all_reduce #2 f32\[1000\] sum\)\s+last collectives: all_reduce #0", 6),
}
GUESTS = {
    "single": (2, 0, r"threaded mode needs MPI_THREAD_MULTIPLE, this program has MPI_THREAD_SINGLE", 10),
    "single_left": (2, None, r"\[rank 0\] rank 1 has ended, this rank waits for it in recv #0 i64\[1\] from 1 tag 0\n", 5),
    "multiple": (4, 0, r"rank 3: 6 4", 10),
}


def run(mpiexec, ranks, command):
    start = time.monotonic()
    job = subprocess.run([mpiexec, "-n", str(ranks), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=60, check=False)
    return job.returncode, job.stdout, time.monotonic() - start


def judge(name, expected, result):
    _, status, pattern, limit = expected
    code, output, seconds = result
    wrong = []
    if (code == 0) if status is None else (code != status):
        wrong.append(f"exit status {code}, expected {'an error' if status is None else status}")
    if not re.search(pattern, output):
        wrong.append(f"no match for {pattern!r}")
    if seconds > limit:
        wrong.append(f"took more than {limit} s")
    print(f"{'FAILED' if wrong else 'ok':7}{name:28}{seconds:5.1f} s  status {code}")
    for line in wrong + (output.splitlines() if wrong else []):
        print(f"         {line}")
    return not wrong


def jobs(folder, chosen):
    """(name, what is expected, command) of each case."""
    for mode in ("threaded", "inline"):
        for case, expected in FAULTS.items():
            if not chosen or case in chosen:
                yield f"{case} {mode}", expected, [f"{folder}/ranks_fault", case, mode]
    for case, expected in GUESTS.items():
        if not chosen or case in chosen:
            yield f"guest {case}", expected, [f"{folder}/ranks_guest", case]


def main():
    mpiexec, folder, *chosen = sys.argv[1:]
    good = True
    with ThreadPoolExecutor(max_workers=2) as pool:  # most of a job's time is mpirun's, which waits
        all_jobs = list(jobs(folder, chosen))
        results = pool.map(lambda job: run(mpiexec, job[1][0], job[2]), all_jobs)
        for (name, expected, _), result in zip(all_jobs, results):
            good &= judge(name, expected, result)
            good &= not name.startswith("guest") or expected[1] != 0 or "MPI has been finalised" in result[1]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
