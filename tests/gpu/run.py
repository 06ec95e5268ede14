# SPDX-License-Identifier: Apache-2.0
"""What scripts/gpu does."""
import argparse
import os
import pathlib
import shlex
import sys

import build
import pack
import phases
from session import FAIL, PASS, Check, Result, Session, fail, table

PHASES = ("parity", "bench", "ranks", "tools")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/gpu", description="Checks and measures Loom on a machine with a GPU.")
    parser.add_argument("phase", nargs="*", choices=[*PHASES, []], help="without: all")
    parser.add_argument("--build", default="", help="build folder, or a pack; without: build/gpu is made")
    parser.add_argument("--out", type=pathlib.Path, default=build.ROOT / "build/gpu-report", help="folder of the report")
    parser.add_argument("--seconds", type=float, default=530, help="of a phase, at most")
    parser.add_argument("--pack", default="", help="build here, write this FILE.tar.xz for --build there")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, tiny")
    return parser.parse_args()


def python_with_torch():
    for candidate in (os.environ.get("LOOM_BENCH_PYTHON", ""), sys.executable):
        if candidate and build.output_of(candidate, "-c", "import torch; print(1)") == "1":
            return candidate
    return ""


def again(words):
    """The command that goes on with the benchmark, from the arguments of this one."""
    return shlex.join(["scripts/gpu", "bench", *(word for word in words if word not in PHASES)])


def run_phase(name, made, given):
    session = Session(name, given.out, given.seconds)
    device = session.run(phases.machine(made))
    if device.verdict != PASS:
        session.told(Check("rest"), Result(device.verdict, "nothing else was tried"), 0)
    elif name == "parity":
        session.run_all(phases.parity(made), phases.JOBS)
    elif name == "bench":
        phases.bench(session, made, given.rehearse, python_with_torch(), again(sys.argv[1:]))
    else:
        checks = phases.ranks(made) if name == "ranks" else phases.tools(made)
        session.run_all(list(checks), phases.JOBS)
    return session.results


def main():
    given = arguments()
    if given.rehearse:
        os.environ["LOOM_SWEEP"] = "quick"
    made = build.found(given.build, given.rehearse)
    if given.pack:
        pack.write(made, given.pack)
        return 0
    given.out = given.out.resolve()
    results = [result for name in given.phase or PHASES for result in run_phase(name, made, given)]
    print(table(results))
    return 1 if any(result["verdict"] == FAIL for result in results) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        fail("interrupted")
