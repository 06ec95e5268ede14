#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that includes point down the layers, prints the graph, and keeps foreign headers out of public ones.

usage: layering.py SOURCE_ROOT
"""
import pathlib
import re
import sys
from collections import Counter

# What each folder may include, besides itself. distributed takes parameters, not modules: neither nn nor data.
BELOW = {
    "accelerators": [],
    "tensor": ["accelerators"],
    "autograd": ["accelerators", "tensor"],
    "nn": ["accelerators", "tensor", "autograd"],
    "data": ["accelerators", "tensor", "autograd"],
    "distributed": ["accelerators", "tensor", "autograd"],
    "fabric": ["accelerators", "tensor", "autograd", "nn", "data", "distributed"],
}
PROGRAMS = ["tests", "bench", "examples", "tools"]
# Folders of one backend: not installed, so free to include what they wrap, and closed to public headers.
PRIVATE = ("accelerators/cpu/", "accelerators/cuda/", "accelerators/onednn/", "distributed/mpi/",
           "distributed/nccl/")
FOREIGN = re.compile(r"(unsupported/)?Eigen/|mpi\.h|mpi-ext\.h|cuda|cublas|cudnn|cufft|curand|nccl|nvtx|cub/|thrust/"
                     r"|oneapi/|dnnl|fmt/|nlohmann/|spdlog/|protozero/|zlib\.h|zconf\.h|doctest|benchmark/|CLI/")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".def", ".cpp", ".cu", ".cuh"}


def sources(root):
    """Relative paths of all sources, and of the umbrella header."""
    found = [root / "loom.h"] if (root / "loom.h").exists() else []
    for folder in [*BELOW, *PROGRAMS]:
        found += sorted(p for p in (root / folder).rglob("*") if p.suffix in SUFFIXES)
    return [p.relative_to(root).as_posix() for p in found]


def check(root):
    errors, edges = [], Counter()
    for path in sources(root):
        folder = path.split("/")[0] if "/" in path else "loom.h"
        public = path == "loom.h" or (
            folder in BELOW and path.endswith((".h", ".def")) and not path.startswith(PRIVATE))
        for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, name = match.groups()
            where = f"{path}:{number}: includes {name}"
            if name.startswith("loom/"):
                target = name[len("loom/"):]
                to = target.split("/")[0]
                if not (root / target).exists():
                    errors.append(f"{where}, which does not exist")
                if to in PROGRAMS and to != folder:
                    errors.append(f"{where}: nothing depends on {to}")
                elif folder in BELOW and to == "loom.h":
                    errors.append(f"{where}: the umbrella header is for users")
                elif folder in BELOW and to != folder and to not in BELOW[folder]:
                    errors.append(f"{where}: {folder} may include only {', '.join(BELOW[folder]) or 'itself'}")
                if public and target.startswith(PRIVATE):
                    errors.append(f"{where}: a public header includes a private one, which is not installed")
                if to != folder:
                    edges[folder, to] += 1
            elif quote == '"' and folder in BELOW:
                errors.append(f'{where}: write <loom/...>')
            elif public and FOREIGN.match(name):
                errors.append(f"{where}: public headers include no foreign header")
    return errors, edges


def main():
    root = pathlib.Path(sys.argv[1])
    errors, edges = check(root)
    print("includes between folders (count):")
    order = [*BELOW, "loom.h", *PROGRAMS]
    for folder in order:
        row = [f"{to} ({edges[folder, to]})" for to in order if edges[folder, to]]
        if row:
            print(f"  {folder:<12} -> {', '.join(row)}")
    for error in errors:
        print(f"error: {error}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
