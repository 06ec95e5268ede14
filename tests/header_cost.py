#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bounds what `#include <loom/loom.h>` costs a user, and checks that each public header compiles alone.

usage: header_cost.py --compiler CXX --source ROOT --include DIR [--jobs N]
"""
import argparse
import concurrent.futures
import pathlib
import subprocess
import sys

from layering import BELOW, PRIVATE

MOST_LINES = 120_000
SKIP = 77


def preprocessed_lines(compiler, include):
    run = subprocess.run([compiler, "-std=c++20", f"-I{include}", "-E", "-P", "-x", "c++", "-"], text=True,
                         input="#include <loom/loom.h>\n", capture_output=True)
    if run.returncode:
        raise SystemExit(f"error: <loom/loom.h> does not preprocess\n{run.stderr}")
    return run.stdout.count("\n")


def compile_alone(compiler, include, header):
    run = subprocess.run([compiler, "-std=c++20", f"-I{include}", "-Wall", "-Wextra", "-Wno-missing-field-initializers",
                          "-Werror", "-fsyntax-only", "-x", "c++", "-"], text=True,
                         input=f"#include <loom/{header}>\n#include <loom/{header}>\n", capture_output=True)
    return run.stderr if run.returncode else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--include", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()

    headers = [p.relative_to(args.source).as_posix() for folder in BELOW
               for p in sorted((args.source / folder).rglob("*.h"))]
    headers = [h for h in headers if not h.startswith(PRIVATE)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = pool.map(lambda h: compile_alone(args.compiler, args.include, h), headers)
        for header, error in zip(headers, results):
            if error:
                failed += 1
                print(f"error: <loom/{header}> does not compile alone\n{error}")
    print(f"{len(headers) - failed} of {len(headers)} public headers compile alone")

    if not (args.source / "loom.h").exists():
        print("skipped: there is no loom.h yet")
        return 1 if failed else SKIP
    lines = preprocessed_lines(args.compiler, args.include)
    print(f"<loom/loom.h>: {lines} preprocessed lines (at most {MOST_LINES})")
    return 1 if failed or lines > MOST_LINES else 0


if __name__ == "__main__":
    sys.exit(main())
