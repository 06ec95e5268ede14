# SPDX-License-Identifier: Apache-2.0
"""What is checked in each phase."""
import collections
import csv
import io
import json
import os
import re
import sys

from build import ROOT, cuda_libraries, output_of, tool
from session import FAIL, PASS, SKIP, Check, Result, doctest_result

REMEDY = ("to do: libraries of the CUDA version that the build is of (CUDA_HOME, LD_LIBRARY_PATH, Python's nvidia-* packages) and "
          "a driver as new, or a build made with the toolkit that the driver is for (CUDA_HOME; --build of another pack)")
JOBS = 4  # side by side on the GPU: tests are small, and most of their time is the host's


def test_files(folder, pattern):
    return sorted(path.name.removesuffix("_test.cpp") for path in (ROOT / "tests" / folder).glob(f"{pattern}_test.cpp"))


def unit(build, name, file, *arguments, seconds=400, alone=False, **environment):
    command = [build.program("unit_tests"), f"--source-file=*/unit/{file}_test.cpp", "--no-colors", *arguments]
    return Check(name, command, seconds, build.environment(**environment), alone)


def cases_of(build, file):
    """The names of a file's test cases, as doctest's filters take them."""
    check = unit(build, file, file, "--list-test-cases")
    lines = output_of("env", *(f"{key}={value}" for key, value in check.environment.items()), *check.command).splitlines()
    return [line.replace(",", "*") for line in lines if line and not line.startswith(("[doctest]", "="))]


def short(case):
    words = "_".join(re.findall(r"\w+", case))
    return words if len(words) <= 40 else f"{words[:18]}..{words[-20:]}"


def machine(build):
    """What there is, and whether the plugin finds the GPU: nothing else is worth trying where it does not."""
    def read(code, output):
        known = {"gpu": output_of("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
                 "libraries": sorted(os.path.basename(file.path) for folder in cuda_libraries() for file in
                                     os.scandir(folder) if re.match(r"lib(cudart|cublasLt|cudnn|nccl)\.so\.\d", file.name)),
                 "folders": cuda_libraries(), "cores": len(os.sched_getaffinity(0)), "build": str(build.folder)}
        if code:
            return Result(FAIL, output.strip()[-300:], known)
        skipped = re.search(r"skipped: (.*)", output)
        if skipped and known["gpu"]:
            return Result(FAIL, f"there is {known['gpu']}, but {skipped.group(1)}; {REMEDY}", known)
        return Result(SKIP if skipped else PASS, skipped.group(1) if skipped else known["gpu"] or "emulated", known)
    check = unit(build, "device", "cuda_random", seconds=120)
    check.read = read
    return check


# --- parity

def parity(build):
    split = ["cuda_parity", "cuda_large"]  # of which each case is a check
    checks = []
    for file in split:
        for case in cases_of(build, file):
            checks.append(unit(build, f"{file}/{short(case)}", file, f"--test-case={case}", alone=file == "cuda_large"))
    for file in test_files("unit", "cuda_*"):
        if file not in split:
            checks.append(unit(build, file, file))
    for file, variable, value in ways():
        checks.append(unit(build, f"{file}/{variable}={value}", file, **{variable: value}))
    return [*checks, leak(build), *fabric_alone(build), *programs(build)]


def ways():
    """(file, variable, value): how some files of tests are run once more, by ctest too."""
    for line in (ROOT / "tests/cuda/ways.txt").read_text(encoding="utf-8").splitlines():
        file, *settings = line.split() if line and not line.startswith("#") else [""]
        yield from ((file, *setting.split("=", 1)) for setting in settings)


def leak(build):
    """What is never released is told of at the end."""
    check = unit(build, "cuda_memory/leak", "cuda_memory", "--test-case=*never released*", LOOM_POISON=1)
    told = "loom: memory of cuda:0: 1 block is still in use, 4096 bytes"

    def read(code, output):
        result = doctest_result(code, output)
        return result if result.verdict != PASS or told in output else Result(FAIL, f"it did not say: {told}")
    check.read = read
    return check


# --- bench: rows of bench/report.py, which writes them down one by one, and goes on where an earlier call stopped

def bench(session, build, rehearse, python, again):
    """again: the command that measures what is left."""
    command = [sys.executable, "-u", ROOT / "bench/report.py", "--gpu", "--build", build.folder, "--out", session.folder,
               "--libraries", build.libraries(), "--resume", "--seconds", max(0, session.left() - 20), "--python", python,
               "--command", "scripts/gpu bench", "--again", again, "--runs", 1 if rehearse else 3,
               *(["--rehearse"] if rehearse else [])]
    emulated = build.environment() if build.emulated else {}
    emulated.pop("LD_LIBRARY_PATH", None)
    before = {path: path.stat().st_mtime_ns for path in session.folder.glob("*.json")}
    session.run(Check("report", command, session.left(), emulated, read=report_result))
    for path in session.folder.glob("*.json"):
        if path.stat().st_mtime_ns != before.get(path):
            tell_rows(session, json.loads(path.read_text(encoding="utf-8")))


def report_result(_code, output):
    """It has an exit code of 1 where a row failed, which tells so itself."""
    lines = output.strip().splitlines() or [""]
    return Result(PASS if any(line.startswith("bench: wrote ") for line in lines) else FAIL, lines[-1][:1000])


def tell_rows(session, report):
    """A line for each row, also of those that an earlier call measured."""
    for name, row in report["rows"].items():
        if name not in report["left"]:
            session.told(Check(name.removeprefix("gpu/")), row_result(row), row.get("seconds", 0))
    for name in report["left"]:
        cut = report.get("cut", {}).get(name)
        session.told(Check(name.removeprefix("gpu/")), Result(SKIP, f"left, not done after {cut} s" if cut else "left"), 0)


def row_result(row):
    if "skipped" in row:
        return Result(SKIP, row["skipped"].splitlines()[0])
    if "failed" in row:
        return Result(FAIL, " ".join(row["failed"].split())[-300:])
    if "losses" in row["dropped"]:
        return Result(FAIL, row["dropped"]["losses"][:300])
    verdicts = collections.Counter(case.get("verdict") for case in row["cases"].values())
    few = collections.Counter(case["few_runs"] for case in row["cases"].values() if "few_runs" in case)
    told = {"open": f" (few runs: {', '.join(f'{count} {which}' for which, count in sorted(few.items()))})"} if few else {}
    counts = [f"{verdicts[verdict]} {verdict}{told.get(verdict, '')}" for verdict in ("met", "open", "not met")
              if verdict in verdicts]
    missing = [f"{name}: {why}" for name, why in row["dropped"].items()]
    return Result(PASS, "; ".join([", ".join(counts), *missing])[:300])


# --- tools

SANITIZED = {"memcheck": "cuda_*", "racecheck": "cuda_*", "initcheck": "cuda_*"}
NOT_SANITIZED = ["cuda_large"]  # large tensors would take hours, and with tiny ones it runs what the other files do


def sanitizers(build):
    program = tool("compute-sanitizer")
    for name, files in SANITIZED.items():
        # initcheck must not take the poison for a value.
        more = {"LOOM_SWEEP": "quick", "LOOM_POISON": 0 if name == "initcheck" else 1}
        for file in test_files("unit", files):
            if file in NOT_SANITIZED:
                continue
            check = unit(build, f"{name}/{file}", file, seconds=240, **more)
            check.without = "" if program else "no compute-sanitizer"
            check.command = [program, "--tool", name, "--error-exitcode", "9", "--print-limit", "5", *check.command]
            check.read = sanitizer_result
            yield check


def sanitizer_result(code, output):
    found = [line.strip("= ") for line in output.splitlines() if line.startswith("=========")]
    errors = [line for line in found if re.search(r"Invalid|hazard|Uninitialized|Error|ERROR SUMMARY: [1-9]", line)]
    doctest = re.search(r"skipped: (.*)", output)
    if code == 0:
        return Result(SKIP, doctest.group(1)) if doctest else Result(PASS, found[-1] if found else "")
    return Result(FAIL, f"exit code {code}; " + "; ".join(errors[:3] or output.strip().splitlines()[-2:])[:400])


WITH_RANKS = ["nccl", "staged", "collectives", "ddp_gradients", "ddp_buckets", "ddp_graph", "ddp_power_sgd", "fabric_collectives",
              "fabric_gpu", "fabric_training"]


def tests_read(variable):
    """Whether the tests with ranks can be put on GPUs by it: without, they would run on the CPU and say nothing."""
    return variable in (ROOT / "tests/distributed/ranks.h").read_text(encoding="utf-8")


def ranks(build):
    """Ranks that share the one GPU: all collectives, DDP as one process, abort and timeout (distributed/nccl.py, with 2 and 4
    ranks), then tests of tests/distributed over NCCL and by way of the host."""
    without = "" if build.mpirun() else "no mpirun"
    script = ROOT / "tests/distributed/nccl.py"
    if not script.exists() or not build.has("nccl_ranks"):
        without = without or "this build has no nccl_ranks"
    folder = build.program("nccl_ranks").parent
    yield Check("nccl_ranks", [sys.executable, "-u", script, build.mpirun(), folder], 300, build.ranks_environment(), True,
                without)
    if not tests_read("LOOM_TEST_RANKS"):
        yield Check("tests", without="these tests do not run on GPUs (LOOM_TEST_RANKS)")
        return
    for file in WITH_RANKS:
        for carrier in ("nccl", "staged"):
            command = build.ranks(2, "distributed_tests", f"--source-file=*/distributed/{file}_test.cpp", "--no-colors")
            yield Check(f"{file}/{carrier}", command or [], 130,
                        build.ranks_environment() | {"LOOM_TEST_RANKS": carrier}, True, "" if command else "no mpirun")


def fabric_alone(build):
    """Fabric's tests with one rank, its tensors and Fabrics on the GPU."""
    if not tests_read("LOOM_TEST_ACCELERATOR"):
        yield Check("fabric", without="these tests do not run on GPUs (LOOM_TEST_ACCELERATOR)")
        return
    for file in test_files("distributed", "fabric_*"):
        command = [build.program("distributed_tests"), f"--source-file=*/distributed/{file}_test.cpp", "--no-colors"]
        yield Check(file, command, 120, build.environment(LOOM_TEST_ACCELERATOR="cuda"))


def programs(build):
    """The examples as users start them: on the GPU as on the CPU, also from one another's checkpoints."""
    for name in ("image_classifier", "gpt"):
        command = [sys.executable, "-u", ROOT / f"tests/programs/{name}.py", build.mpirun() or "mpirun", build.program(name), "cuda"]
        yield Check(f"programs/{name}", command, 300, build.environment(),
                    without="" if build.has(name) else f"this build has no {name}")


METRICS = {"gpu__time_duration.sum": "ns", "dram__throughput.avg.pct_of_peak_sustained_elapsed": "dram %",
           "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm %"}


def slowest_kernels(build):
    """ncu over a step of GPT-2: which kernels take longest, and how near the chip's limits they are."""
    program = tool("ncu")
    command = [program, "--clock-control", "none", "--csv", "--print-units", "base", "--metrics", ",".join(METRICS),
               "--launch-skip", 1500, "--launch-count", 600, build.program("loom_bench"), "train", "model=gpt", "width=768",
               "depth=12", "heads=12", "context=1024", "vocabulary=50304", "gelu_tanh=1", "samples=24", "batch=8", "steps=2",
               "precision=bf16-mixed", "device=cuda"]
    without = "no ncu" if not program else "" if build.has("loom_bench") else "no loom_bench in this build"
    return Check("ncu/gpt2", command, 240, build.environment(), True, without, kernels_result)


def kernels_result(code, output):
    start = output.find('"ID"')
    if code or start < 0:
        return Result(FAIL, f"exit code {code}; " + " ".join(output.split())[-300:])
    kernels = {}
    for line in csv.DictReader(io.StringIO(output[start:])):
        name = line.get("Kernel Name") or ""
        if line.get("Metric Name") in METRICS and line.get("Metric Value"):
            value = float(line["Metric Value"].replace(",", ""))
            kernels.setdefault(name, {}).setdefault(METRICS[line["Metric Name"]], []).append(value)
    slowest = sorted(kernels.items(), key=lambda item: -sum(item[1].get("ns", [0])))[:15]
    total = sum(sum(values.get("ns", [0])) for values in kernels.values()) or 1
    rows = []
    for name, values in slowest:
        means = {key: round(sum(found) / len(found), 1) for key, found in values.items() if key != "ns"}
        rows.append({"kernel": name[:120], "launches": len(values.get("ns", [])),
                     "share": round(sum(values.get("ns", [0])) / total, 3)} | means)
        print(f"  {rows[-1]['share']:6.1%} {means.get('dram %', 0):5.1f} % dram {means.get('sm %', 0):5.1f} % sm  {name[:110]}")
    return Result(PASS, f"{len(kernels)} kernels, {total / 1e6:.1f} ms", {"kernels": rows})


def tools(build):
    return [slowest_kernels(build), *sanitizers(build)]
