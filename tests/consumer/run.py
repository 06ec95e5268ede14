#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs the project beside this file against an installed Loom, then with Loom as a subdirectory.

usage: run.py --cmake CMAKE --source ROOT --build BUILD --include DIR --config TYPE --generator GEN [--jobs N] [-D VAR=VALUE]...
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PRIVATE_PACKAGES = ["fmt", "nlohmann_json", "ZLIB", "MPI", "protozero", "spdlog"]


def run(*command):
    print("+", " ".join(map(str, command)), flush=True)
    subprocess.run([str(c) for c in command], check=True)


def build_and_run(args, folder, definitions):
    started = time.monotonic()
    run(args.cmake, "-S", HERE, "-B", folder, "-G", args.generator, f"-DCMAKE_BUILD_TYPE={args.config}",
        *[f"-D{d}" for d in args.definitions + definitions])
    run(args.cmake, "--build", folder, "--target", "consumer", "--parallel", args.jobs)
    run(folder / "consumer")
    print(f"{folder.name}: {time.monotonic() - started:.0f} s", flush=True)


def check_relocatable(prefix, args):
    """The package must not name the folders that it was built in."""
    for path in prefix.rglob("*.cmake"):
        text = path.read_text(encoding="utf-8")
        for folder in (args.source, args.build):
            if str(folder) in text:
                sys.exit(f"error: {path.name} names {folder}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cmake", required=True)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--include", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--jobs", default="2")
    parser.add_argument("-D", dest="definitions", action="append", default=[])
    args = parser.parse_args()
    if not (args.source / "loom.h").exists():
        print("skipped: there is no loom.h yet")
        return 77

    work = args.build / "consumer"
    prefix = work / "prefix"
    shutil.rmtree(work / "installed", ignore_errors=True)
    shutil.rmtree(prefix, ignore_errors=True)
    run(args.cmake, "--install", args.build, "--config", args.config, "--prefix", prefix)
    check_relocatable(prefix, args)
    # Moved after installation, and on a machine that has none of Loom's own dependencies.
    moved = work / "moved"
    shutil.rmtree(moved, ignore_errors=True)
    prefix.rename(moved)
    build_and_run(args, work / "installed", [f"CMAKE_PREFIX_PATH={moved}"] +
                  [f"CMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in PRIVATE_PACKAGES])
    # The same include folder as the main build's makes the compiler cache answer.
    build_and_run(args, work / "embedded", [f"LOOM_SOURCE_DIR={args.source}", f"LOOM_INCLUDE_DIR={args.include}"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
