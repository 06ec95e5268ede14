# SPDX-License-Identifier: Apache-2.0
"""Ranks with GPUs as processes: nccl.py MPIRUN FOLDER. On the emulated device, or on what the machine has."""
import os
import subprocess
import sys
import time

mpirun, folder = sys.argv[1:]
program = os.path.join(folder, "nccl_ranks")
failures = []


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

done, seconds = run(2, "timeout", LOOM_TIMEOUT="1")
check(done.returncode != 0 and "PASS timeout on rank 0: timeout after 1 s in all_reduce #2 f32[5] mean on rank 0 of 2"
      in done.stdout and "timeout after 1 s" in done.stderr and seconds < 30, "timeout", done)

done, seconds = run(2, "abort")
check(done.returncode != 0 and "enough" in done.stderr and seconds < 30, "abort", done)

done, seconds = run(2, "killed")
check(done.returncode != 0 and seconds < 30, "a rank that is killed", done)

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
