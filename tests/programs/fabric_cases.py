#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs on Fabric that go wrong: the job is over within seconds, the first cause is printed first. And what is said
of one that goes well: traces.

usage: fabric_cases.py MPIEXEC PROGRAM [GROUP...]
"""
import json
import os
import re

import jobs
from jobs import expect, fails, run
from slurm_node import on_slurm

SECONDS = 5 + 3  # 5 to end, the rest to start


def goes_wrong(program, case, first, launcher=()):
    """The first line that the job prints matches. Ranks of mpirun, unless another launcher is given."""
    job = run([*launcher, program, case], None if launcher else 3)
    expect(job.code != 0, job, "expected an error status")
    line = next((line for line in job.output.splitlines() if line.strip()), "")
    expect(re.match(first, line), job, f"expected the first line to match {first!r}")
    expect(job.seconds < SECONDS, job, f"expected an end within {SECONDS} s")
    return job


def rank_throws(program, _):
    job = goes_wrong(program, "throw", r"\[rank 1\] disk quota exceeded$")
    fails(job, "disk quota exceeded")


def rank_throws_a_number(program, _):
    goes_wrong(program, "throw_number", r"\[rank 1\] an exception of unknown type$")


def rank_exits(program, _):
    goes_wrong(program, "exit", r"\[rank \d\] rank 1 has ended, this rank waits for it in ")


def rank_is_killed(program, _):
    job = goes_wrong(program, "kill", r".")
    expect(re.search(r"rank 1 .*\n?.*exited on signal 9", job.output), job, "expected mpirun to name rank 1")


def rank_crashes(program, _):
    job = goes_wrong(program, "segfault", r".")
    expect(re.search(r"rank 1 .*\n?.*exited on signal 11", job.output), job, "expected mpirun to name rank 1")


def all_ranks_throw(program, _):
    job = goes_wrong(program, "throw_all", r"\[rank 0\] no data set$")
    fails(job, "no data set")


def one_rank_throws(program, _):
    fails(run([program, "throw_all"]), "error: no data set")


def models_differ(program, _):
    job = run([program, "models"], 3)
    text = ("DDP expects same model across all ranks, but Rank 0 has 2 params, while rank 1 has inconsistent 4 params. "
            "First difference: params[2] is second.weight, on one of them only.")
    for rank in range(3):
        fails(job, f"rank {rank} raised: {text}")
    fails(job, f"error: {text}")
    expect(job.seconds < SECONDS, job, f"expected an end within {SECONDS} s")


def disk_is_full(program, folder):
    for ranks in (None, 2):
        job = jobs.succeeds(run([program, "full_disk", folder], ranks))
        expect(re.search(rf"raised: (rank 0: )?safetensors: {folder}/last.safetensors: cannot write the file: "
                         "File too large", job.output), job, "expected the reason")
        expect("loaded: 100\n" in job.output, job, "expected the previous checkpoint to load")
        expect(sorted(p.name for p in folder.iterdir()) == [".loom.lock", "last.safetensors"], job,
               f"left behind: {list(folder.iterdir())}")


def two_programs_write_one_folder(program, folder):
    for ranks in (None, 2):
        first = jobs.start([program, "hold", folder], ranks)
        expect(first.stdout.readline().strip() == b"saved", jobs.Job(0, "", 0), "expected the first to save")
        second = run([program, "hold", folder], ranks)
        fails(second, f"save: the checkpoint directory {folder} is being written by process ")
        expect(re.search(r"process \d+ on \S+; give each program a directory of its own", second.output), second,
               "expected the other process to be named")
        first.communicate(b"\n", timeout=jobs.LIMIT)
        expect(first.returncode == 0, second, "expected the first to end well")
        jobs.succeeds(run([program, "hold", folder], ranks))  # the folder is free again


def ranks_share_cores(program, _):
    """Cores that several ranks may use are divided; a rank that has its own keeps them."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    share = ["taskset", "-c", ",".join(map(str, cores)), jobs.MPIEXEC, "--bind-to", "none", "-n", 2, program, "place"]
    job = jobs.succeeds(run(share, LOOM_NUM_THREADS=None))
    expect(sorted(job.output.splitlines()) == [f"rank {rank} of 2, local rank {rank}, node 0, 1 threads"
                                               for rank in range(2)], job, "expected one thread each")
    job = jobs.succeeds(run(share, LOOM_NUM_THREADS=str(len(cores))))
    if len(cores) > 1:
        expect("loom: 2 ranks with 2 threads each share 2 cores; leave LOOM_NUM_THREADS unset, or set it to 1\n"
               in job.output, job, "expected the cores to be counted")
        alone = ["taskset", "-c", f"{cores[0]}", jobs.MPIEXEC, "--bind-to", "none", "-n", 2, program, "place"]
        job = jobs.succeeds(run(alone, LOOM_NUM_THREADS="2"))
        expect("loom: this rank may run on 1 of the machine's cores but uses 2 threads" in job.output, job,
               "expected the binding to be named")


def bound_ranks_say_so_once(program, _):
    """Ranks that mpirun binds to fewer cores than they use threads: one line for the node, not one a rank."""
    bound = [jobs.MPIEXEC, "--bind-to", "core:overload-allowed", "-n", 2, program, "place"]
    threads = os.cpu_count() + 1
    job = jobs.succeeds(run(bound, LOOM_NUM_THREADS=str(threads)))
    said = re.findall(r"^loom: this rank may run on \d+ of the machine's cores but uses (\d+) threads; start mpirun with "
                      r"--bind-to none, or set LOOM_NUM_THREADS=\d+ \(2 ranks on this node\)$", job.output, re.M)
    expect(said == [str(threads)] and job.output.count("loom:") == 1, job, "expected one line about the cores")
    job = jobs.succeeds(run(bound, LOOM_NUM_THREADS="1"))
    expect("loom:" not in job.output, job, "expected nothing about the cores")


def trace_of_each_rank(program, folder):
    """LOOM_TRACE: one file a rank, on one line of time."""
    for ranks in (None, 2):
        job = jobs.succeeds(run([program, "few_steps"], ranks, LOOM_TRACE=str(folder / "trace.json")))
        files = sorted(folder.iterdir())
        expect([f.name for f in files] == [f"trace.rank{r}.json" for r in range(ranks or 1)], job, f"found {files}")
        seen = []
        for rank, file in enumerate(files):
            trace = json.loads(file.read_text())
            spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
            expect({e["pid"] for e in spans} == {rank}, job, f"expected rank {rank} alone in {file.name}")
            steps = [e for e in spans if e["name"] == "Fabric.step"]
            expect(len(steps) == 3, job, f"expected 3 steps, found {len(steps)}")
            expect(any(e["name"] == "first (Linear)" for e in spans), job, "expected a layer by its path")
            seen.append((steps[0]["ts"], steps[-1]["ts"]))
            if ranks:
                expect(any(e["name"] == "all_reduce" for e in spans), job, "expected collectives")
            file.unlink()
        first, last = max(s[0] for s in seen), min(s[1] for s in seen)
        expect(first < last, job, f"expected the ranks' steps at the same time, found {seen}")


def trace_without_a_folder(program, folder):
    job = jobs.succeeds(run([program, "few_steps"], LOOM_TRACE=str(folder / "no" / "trace.json")))
    expect(f"loom: LOOM_TRACE: the folder {folder}/no does not exist; nothing is recorded\n" in job.output, job,
           "expected the reason")


@on_slurm
def srun_places_ranks(program, _):
    for ranks in (1, 2, 4):
        job = jobs.succeeds(run(["srun", "-Q", "--mpi=pmix", "-n", ranks, program, "place"], LOOM_NUM_THREADS=None))
        lines = job.output.splitlines()
        threads = max(1, len(os.sched_getaffinity(0)) // ranks)
        expect(sorted(lines) == [f"rank {rank} of {ranks}, local rank {rank}, node 0, {threads} threads"
                                 for rank in range(ranks)], job, f"expected {ranks} ranks, {threads} threads each")


@on_slurm
def srun_ends_the_job(program, _):
    srun = ["srun", "-Q", "--mpi=pmix", "-n", 3]
    for case, first in (("throw", r"\[rank 1\] disk quota exceeded$"),
                        ("exit", r"\[rank \d\] rank 1 has ended, this rank waits for it in "),
                        ("kill", r"srun: error: .*Killed"),
                        ("segfault", r".")):
        goes_wrong(program, case, first, srun)


if __name__ == "__main__":
    jobs.main({
        "faults": [rank_throws, rank_throws_a_number, rank_exits, rank_is_killed, rank_crashes, all_ranks_throw,
                   one_rank_throws, models_differ],
        "checkpoints": [disk_is_full, two_programs_write_one_folder],
        "trace": [trace_of_each_rank, trace_without_a_folder],
        "cores": [ranks_share_cores, bound_ranks_say_so_once],
        "srun": [srun_places_ranks, srun_ends_the_job],
    })
