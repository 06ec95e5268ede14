# SPDX-License-Identifier: Apache-2.0
"""What a figure was measured of: the commit, and a fingerprint of the files that decide figures. The fingerprint needs no
git, and stays the same when a commit changes other files: pages, tests, examples, for the CPU's rows the CUDA plugins. What
a test was run of is told in the same way, by the tests and examples too."""
import hashlib
import json

import machine

FOLDERS = ["accelerators", "autograd", "bench", "cmake", "data", "distributed", "fabric", "nn", "tensor"]
OF_PROGRAMS = {".cpp", ".h", ".def", ".cu", ".cuh", ".cmake"}
OF_A_GPU = ["accelerators/cuda", "distributed/nccl"]
OF_TESTS = ["tests", "examples"]
OF_MEASURING = ["measure.py", "programs.py", "builds.py", "machine.py"]  # rows.py, cases.txt: resume.settings()
RECORD = "sources.json"  # in a build that was carried here: what it was made from


def fingerprint(root, paths):
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def files(folder, suffixes):
    return [path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file()]


def programs(root, gpu):
    """Of what the programs are built from; gpu: with the plugins for it."""
    found = [root / name for name in ("loom.h", "CMakeLists.txt")]
    found += [path for name in FOLDERS for path in files(root / name, OF_PROGRAMS)]
    left_out = [] if gpu else [root / name for name in OF_A_GPU]
    return fingerprint(root, [path for path in found if path.exists() and not any(f in path.parents for f in left_out)])


def measuring(root):
    """Of what starts them, and of the peers."""
    found = [path for name in OF_MEASURING if (path := root / "bench" / name).exists()]
    return fingerprint(root, found + files(root / "bench/peers", {".py", ".cpp"}))


def commit(root):
    revision = machine.output("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    if machine.output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"):
        revision += " with changes"
    return revision


def tests(root):
    """Of what the tests' programs and the examples are built from."""
    return fingerprint(root, [path for name in OF_TESTS for path in files(root / name, OF_PROGRAMS)])


def testing(root):
    """Of what starts them: the scripts and their lists."""
    return fingerprint(root, [path for name in OF_TESTS for path in files(root / name, {".py", ".txt"})])


def record(root, gpu):
    """What a build of this tree brings along to where it is carried."""
    return {"loom": commit(root), "programs": programs(root, gpu), "tests": tests(root)}


def made_from(root, build, gpu):
    """The record of a carried build, else that of the tree."""
    carried = build / RECORD
    return json.loads(carried.read_text(encoding="utf-8")) if carried.exists() else record(root, gpu)


def short(*parts):
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def measured(root, build, gpu):
    """The commit and the fingerprint of all: of the tree, but what a carried build was made from decides for its programs."""
    about = made_from(root, build, gpu)
    return about["loom"], short(about["programs"], measuring(root))


def tested(root, build, gpu):
    """The fingerprint of what a test says something of."""
    about = made_from(root, build, gpu)
    return short(about["programs"], about.get("tests", ""), testing(root))
