# SPDX-License-Identifier: Apache-2.0
"""What scripts/gpu does."""
import argparse
import os
import pathlib
import shlex
import sys

import build
import identity
import pack
import phases
from session import FAIL, PASS, Check, Result, Session, fail, table

PHASES = ("parity", "bench", "ranks", "tools")


SECONDS, OUT = 530, build.ROOT / "build/gpu-report"
START = 30  # seconds of a phase before its checks begin
NAMES = 12  # of what was left: more are counted


def phase(word):
    if word not in PHASES:
        raise argparse.ArgumentTypeError(f"there are {', '.join(PHASES)}, no {word!r}")
    return word


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/gpu", description="Checks and measures Loom on a machine with a GPU.")
    parser.add_argument("phase", nargs="*", type=phase, metavar="PHASE", help=f"{', '.join(PHASES)}; without: all")
    parser.add_argument("--build", default="", help="build folder, or a pack; without: build/gpu is made")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="folder of the report, which a later call goes on in")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a phase, at most")
    parser.add_argument("--fresh", action="store_true", help="run checks again that passed in an earlier call")
    parser.add_argument("--pack", default="", help="build here, write this FILE.tar.xz for --build there")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, tiny")
    return parser.parse_args()


def python_with_torch():
    for candidate in (os.environ.get("LOOM_BENCH_PYTHON", ""), sys.executable):
        if candidate and build.output_of(candidate, "-c", "import torch; print(1)") == "1":
            return candidate
    return ""


def again(given, names, seconds=0):
    """The command that goes on with these phases; seconds: for each, if more than in this call."""
    seconds = max(seconds, given.seconds)
    words = ["scripts/gpu", *names]
    words += ["--rehearse"] if given.rehearse else []
    words += ["--build", given.build] if given.build else []
    words += ["--out", str(given.out)] if given.out != OUT else []
    words += ["--seconds", f"{seconds:g}"] if seconds != SECONDS else []
    return shlex.join(words)


def run_phase(name, made, given):
    session = Session(name, given.out, given.seconds)
    device = session.run(phases.machine(made))
    if device.verdict != PASS:
        session.told(Check("rest"), Result(device.verdict, "nothing else was tried"), 0)
    elif name == "bench":
        phases.bench(session, made, given.rehearse, python_with_torch(), again(given, ["bench"]))
    else:
        session.go_on(identity.of(made, device.data), given.fresh)
        checks = {"parity": phases.parity, "ranks": phases.ranks, "tools": phases.tools}[name](made)
        session.run_all(list(checks), phases.JOBS)
    return session


def what_is_left(sessions, given):
    """A line for what there was no time for, with the command that goes on; nothing where all was done. bench's own
    report says what it left."""
    sessions = [session for session in sessions if session.left_out and session.phase != "bench"]
    left = {f"{session.phase}/{name}": seconds for session in sessions for name, seconds in session.left_out.items()}
    if not left:
        return ""
    more = f" and {len(left) - NAMES} more" if len(left) > NAMES else ""
    longest = max(left.values()) + START if all(left.values()) else 0  # where all were begun, they may need more
    return (f"gpu: for {len(left)} checks no time was left: {', '.join([*left][:NAMES])}{more}; "
            f"to go on: {again(given, [session.phase for session in sessions], longest)}")


def main():
    given = arguments()
    if given.rehearse:
        os.environ["LOOM_SWEEP"] = "quick"
    made = build.found(given.build, given.rehearse)
    if given.pack:
        pack.write(made, given.pack)
        return 0
    given.out = given.out.resolve()
    sessions = [run_phase(name, made, given) for name in given.phase or PHASES]
    results = [result for session in sessions for result in session.results]
    print(table(results))
    if left := what_is_left(sessions, given):
        print(left)
    return 1 if any(result["verdict"] == FAIL for result in results) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        fail("interrupted")
