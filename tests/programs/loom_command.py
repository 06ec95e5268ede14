#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command `loom`: what it says of this machine, and why there is no GPU where there is none.

usage: loom_command.py MPIEXEC PROGRAM [GROUP...]
"""
import os
import re

import jobs
from jobs import expect, fails, run, succeeds


def has_line(job, name, text):
    expect(re.search(rf"^  {name} +{re.escape(text)}", job.output, re.M), job, f"expected {name}: {text}")


def tells_of_the_processor(program, _):
    job = succeeds(run([program, "info"], LOOM_CUDA="0", LOOM_CPU="portable", LOOM_NUM_THREADS="3"))
    expect(re.match(r"loom \d+\.\d+\.\d+\n", job.output), job, "expected the version")
    for name, text in (("kernels", "portable\n"), ("threads", "3\n"), ("CUDA", "LOOM_CUDA=0\n")):
        has_line(job, name, text)
    expect(re.search(r"^  MPI +\S+", job.output, re.M), job, "expected MPI, or why there is none")
    expect(re.search(r"^  oneDNN +\S+", job.output, re.M), job, "expected oneDNN, or why it is not used")
    expect("libraries" not in job.output, job, "expected no libraries of NVIDIA's")
    expect(succeeds(run([program, "--version"])).output in job.output, job, "expected the same version")


def says_why_there_is_no_gpu(program, folder):
    none = folder / "none.so"
    has_line(succeeds(run([program, "info"], LOOM_CUDA_PLUGIN=str(none))), "CUDA",
             f"built without CUDA: there is no {none}\n")
    has_line(succeeds(run([program, "info"], LOOM_NCCL_PLUGIN=str(none))), "NCCL",
             f"built without NCCL: there is no {none}\n")
    has_line(succeeds(run([program, "info"], LOOM_NCCL="0")), "NCCL", "LOOM_NCCL=0\n")
    text = folder / "text.so"
    text.write_text("no library")
    job = succeeds(run([program, "info"], LOOM_CUDA_PLUGIN=str(text)))
    expect(re.search(rf"^  CUDA +{text}: \S+", job.output, re.M), job, "expected the loader's reason")
    other = os.environ["OTHER_BUILD"]
    has_line(succeeds(run([program, "info"], LOOM_CUDA_PLUGIN=other)), "CUDA",
             f"{other} is of another build than libloom.so\n")
    has_line(succeeds(run([program, "info"], LOOM_NCCL_PLUGIN=str(text))), "NCCL", f"{text}: ")


def tells_of_gpus(program, _):
    job = succeeds(run([program, "info"]))
    if not re.search(r"^  cuda:0 ", job.output, re.M):
        return "skipped: " + re.search(r"^  CUDA +(.*)$", job.output, re.M)[1]
    for part in ("  libraries     CUDA runtime ", "compute capability ", " multiprocessors at ", " TB/s", " GiB at "):
        expect(part in job.output, job, f"expected {part!r}")
    expect(re.search(r"^  NCCL +(NCCL \d+\.\d+\.\d+ \(/.+\)|built without NCCL: .*)$", job.output, re.M), job,
           "expected NCCL's version and file, or why there is none")
    return None


def mistakes_are_named(program, _):
    fails(run([program]), "A subcommand is required")
    fails(run([program, "inof"]), "A subcommand is required")
    fails(run([program, "info"], LOOM_CPU="z80"), "error: LOOM_CPU: expected one of ")


GROUPS = {"info": [tells_of_the_processor, says_why_there_is_no_gpu, tells_of_gpus, mistakes_are_named]}

if __name__ == "__main__":
    jobs.main(GROUPS)
