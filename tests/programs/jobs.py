# SPDX-License-Identifier: Apache-2.0
"""Starts programs, alone or as ranks, and judges how they end."""
import collections
import os
import pathlib
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback

Job = collections.namedtuple("Job", "code output seconds")
LIMIT = 60  # seconds; more is a job that hangs
MPIEXEC = "mpirun"


def environment(**changes):
    """This process's variables; None removes one."""
    variables = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                     LOOM_ALLOW_RUN_AS_ROOT="1", LOOM_OVERSUBSCRIBE="1", LOOM_NUM_THREADS="1")
    for name, value in changes.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    return variables


def words(command, ranks):
    """ranks: under mpirun; None: alone."""
    launcher = [] if ranks is None else [MPIEXEC, "-n", str(ranks)]
    return [*launcher, *map(str, command)]


def run(command, ranks=None, limit=LIMIT, **variables):
    start = time.monotonic()
    job = subprocess.run(words(command, ranks), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env=environment(**variables), timeout=limit, check=False)
    return Job(job.returncode, job.stdout.decode(errors="replace"), time.monotonic() - start)


def run_on_terminal(command, ranks=None, **variables):
    """The same with a terminal as its output."""
    begin, (ours, theirs) = time.monotonic(), pty.openpty()
    with subprocess.Popen(words(command, ranks), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                          env=environment(**variables)) as job:
        os.close(theirs)
        output = b""
        try:
            while part := os.read(ours, 65536):
                output += part
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    return Job(job.returncode, output.decode(), time.monotonic() - begin)


def start(command, ranks=None, **variables):
    return subprocess.Popen(words(command, ranks), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env=environment(**variables))


def children(pid):
    """Processes that this one started."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return sorted(found)


def expect(condition, job, what):
    if not condition:
        raise AssertionError(f"{what}\nstatus {job.code} after {job.seconds:.1f} s, output:\n{job.output}")


def succeeds(job):
    expect(job.code == 0, job, "expected success")
    return job


def fails(job, text, times=1):
    """Ends with an error whose text is printed `times` times, before anything else is said of it."""
    expect(job.code != 0, job, "expected an error status")
    expect(job.output.count(text) == times, job, f"expected {times} x {text!r}")
    return job


def attempt(case, program):
    """Runs one case in a folder of its own; returns what is to be said of it."""
    with tempfile.TemporaryDirectory(prefix="loom-test-") as folder:
        try:
            return case(program, pathlib.Path(folder)) or "ok"
        except Exception:  # pylint: disable=broad-except
            return "FAILED\n" + traceback.format_exc()


def main(groups):
    """usage: SCRIPT MPIEXEC PROGRAM [GROUP...]: runs the groups' cases, functions of (program, folder).

    The status is 77 when a case could not be run and none failed.
    """
    global MPIEXEC
    MPIEXEC, program, *chosen = sys.argv[1:]
    notes = []
    for case in [case for group in chosen or groups for case in groups[group]]:
        begin = time.monotonic()
        notes.append(attempt(case, program))
        print(f"{case.__name__:30}{time.monotonic() - begin:5.1f} s  {notes[-1]}", flush=True)
    if any(note.startswith("FAILED") for note in notes):
        sys.exit(1)
    sys.exit(77 if any(note.startswith("skipped") for note in notes) else 0)


def write_data(folder, train=640, test=64):
    """A small data set in Fashion-MNIST's format: each class has stripes of its own, under noise."""
    folder.mkdir(exist_ok=True)
    state = 1
    for name, count in (("train", train), ("t10k", test)):
        labels = bytes(i * 7 % 10 for i in range(count))
        pixels = bytearray()
        for label in labels:
            for y in range(28):
                for x in range(28):
                    state = state * 1103515245 + 12345 & 0x7FFFFFFF
                    stripe = x // 3 == label or y // 3 == label * 2 % 9
                    pixels.append((state >> 16) % 40 + (180 if stripe else 0))
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)
    return folder


def no_gpu(job):
    """Why a program had none for each of its ranks; empty if it had."""
    return job.output.partition("error: accelerator 'cuda': ")[2].split(";")[0]


def expect_a_gpu_each(job, ranks):
    """Ranks with emulated devices, started with LOOM_EMULATED_CONTEXTS=1: each has touched its own alone."""
    told = sorted(line.rpartition("contexts on ")[2] for line in job.output.splitlines() if "emulated CUDA: cont" in line)
    expect(not told or told == [str(rank) for rank in range(ranks)], job, "expected each rank to have a GPU of its own")


def which(program):
    return shutil.which(program)
