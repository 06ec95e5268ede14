# SPDX-License-Identifier: Apache-2.0
"""Ranks with GPUs as processes: nccl.py MPIRUN FOLDER. On the emulated device, or on what the machine has."""
import os
import subprocess
import sys
import time

mpirun, folder = sys.argv[1:]
program = os.path.join(folder, "nccl_ranks")
failures = []
# The limit is that of beginning too: of NCCL itself, which takes its time to find its way, that is seconds.
LIMIT = 1 if "emulated" in os.environ.get("LOOM_NCCL_PLUGIN", "") else 15
SOON = 30 + 2 * LIMIT  # seconds: before a rank that stays away for a minute comes back


def run(ranks, *arguments, **variables):
    command = [mpirun, "-q", "--timeout", "100", "-n", str(ranks), program, *arguments]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env={**os.environ, **variables})
    return done, time.monotonic() - begin


def check(condition, what, done):
    if not condition:
        failures.append(what)
        print(f"FAIL {what}: status {done.returncode}\n{done.stdout}{done.stderr}")


for carrier in ([], ["staged"]):
    for ranks in (2, 4):
        for case in ("collectives", "ddp"):
            done, _ = run(ranks, case, *carrier)
            if done.returncode == 77:
                print(done.stdout)
                sys.exit(77)
            passed = done.stdout.count("PASS ")
            what = f"{case} {' '.join(carrier)} on {ranks} ranks"
            check(done.returncode == 0 and passed == {"collectives": 65, "ddp": 2}[case] and "FAIL" not in done.stdout,
                  what, done)
            print(f"{what}: {passed} checks")

done, seconds = run(2, "timeout", LOOM_TIMEOUT=str(LIMIT))
check(done.returncode != 0 and f"PASS timeout on rank 0: timeout after {LIMIT} s in all_reduce #2 f32[5] mean on rank 0 of 2"
      in done.stdout and f"timeout after {LIMIT} s" in done.stderr and seconds < SOON, "timeout", done)

done, seconds = run(2, "abort")
check(done.returncode != 0 and "enough" in done.stderr and seconds < SOON, "abort", done)

done, seconds = run(2, "killed")
check(done.returncode != 0 and seconds < SOON, "a rank that is killed", done)

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
