# SPDX-License-Identifier: Apache-2.0
"""Rows that are not runs of a program: sizes of libraries, times of compilers, ranks counted up. Each function gives
the records of both sides, as the programs would."""
import dataclasses
import os
import re
import shutil
import time

import machine
from programs import Skipped


def record(case, value, unit, **more):
    return {"case": case, "value": value, "unit": unit, **more}


def torch_folder(programs):
    return machine.output(programs.python, "-c", "import os, torch; print(os.path.dirname(torch.__file__))") \
        if programs.python else ""


def stripped_size(programs, library):
    copy = programs.scratch / "stripped.so"
    copy.unlink(missing_ok=True)
    machine.output("strip", "-o", str(copy), str(library))
    return (copy if copy.exists() else library).stat().st_size


def sizes(programs, _row):
    libraries = {path.resolve() for path in programs.build.glob("libloom*.so")}
    if not libraries:
        raise Skipped("no shared library in the build folder")
    own = sum(stripped_size(programs, path) for path in libraries)
    results = {"ours": [record("all libraries", own / 2**20, "MiB")]}
    if folder := torch_folder(programs):
        paths = [os.path.join(folder, "lib", name) for name in ("libtorch_cpu.so", "libc10.so", "libtorch_python.so")]
        size = sum(os.path.getsize(path) for path in paths if os.path.exists(path))
        results["PyTorch, CPU part"] = [record("all libraries", size / 2**20, "MiB")]
    return results


def compile_seconds(programs, source, includes):
    compiler = machine.cmake_cache(programs.build).get("CMAKE_CXX_COMPILER", "c++")
    started = time.monotonic()
    programs.run([compiler, "-std=c++20", "-O2", "-w", *(f"-I{folder}" for folder in includes), "-c", source, "-o",
                  programs.scratch / "user.o"], os.environ | {"CCACHE_DISABLE": "1"})
    return time.monotonic() - started


def user_file(programs, _row):
    """The README's program against LibTorch's headers."""
    program = re.search(r"```cpp\n(.*?)```", (programs.root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    source = programs.scratch / "user.cpp"
    source.write_text(program.group(1), encoding="utf-8")
    results = {"ours": [record("compile", compile_seconds(programs, source, [programs.build / "include"]), "s")]}
    if folder := torch_folder(programs):
        includes = [f"{folder}/include", f"{folder}/include/torch/csrc/api/include"]
        seconds = compile_seconds(programs, programs.peers / "hello.cpp", includes)
        results["LibTorch"] = [record("compile", seconds, "s")]
    return results


def repository(programs, _row):
    """Library and tests as the default build makes them, on all cores."""
    folder = programs.scratch / "empty-build"
    shutil.rmtree(folder, ignore_errors=True)
    environment = os.environ | {"CCACHE_DISABLE": "1"}
    started = time.monotonic()
    programs.run(["cmake", "-S", programs.root, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"], environment)
    programs.run(["cmake", "--build", folder, "--parallel", len(programs.cores)], environment, timeout=7200)
    return {"ours": [record("build", time.monotonic() - started, "s")]}


def over_ranks(programs, row):
    """The training row train/mlp3 on 1, 2, .. ranks of a thread each."""
    arguments = ["model=mlp", "widths=784-512-512-10", "batch=64", "steps=100", "warmup=20"]
    results = {}
    for ranks in (1, 2, 4):
        if ranks > len(programs.cores):
            break
        one = dataclasses.replace(row, ours=["train", *arguments], ranks=ranks, model=[*arguments[:2], "samples=1024"])
        sides = {"ours": programs.ours(one), "DDP, fused": programs.peer(one, ["training.py", *arguments, "fused=1"])}
        for side, records in sides.items():
            for step in (found for found in records or [] if found["case"] == "step"):
                results.setdefault(side, []).append(record(f"ranks {ranks}", step["value"], "ms", x=ranks))
    return results
