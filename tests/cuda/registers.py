#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What ptxas says of the kernels (nvcc -Xptxas=-v): which use the most registers, and which spill. Ends with an error
where a kernel of ours does, unless it computes in f64: exponentials and the like take many registers there, and no
training waits for them.

usage: registers.py BUILD_LOG
"""
import pathlib
import re
import subprocess
import sys
from dataclasses import dataclass

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
OURS = "loom::"
SHOWN = 10


@dataclass
class Kernel:
    name: str
    registers: int = 0
    stack: int = 0
    spilled: int = 0


def kernels_of(log):
    """Of each entry function and architecture."""
    kernels, current = {}, None
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            current = kernels.setdefault(entry.groups(), Kernel(entry.group(1)))
        elif current and (spills := SPILLS.search(line)):
            stack, stores, loads = map(int, spills.groups())
            current.stack, current.spilled = max(current.stack, stack), max(current.spilled, stores, loads)
        elif current and (used := REGISTERS.search(line)):
            current.registers = max(current.registers, int(used.group(1)))
    return list(kernels.values())


def named(kernels):
    """With names that people read."""
    text = "\n".join(kernel.name for kernel in kernels)
    try:
        names = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return kernels
    for kernel, name in zip(kernels, names):
        kernel.name = name.removeprefix("void ")
    return kernels


def is_hot(kernel):
    """Also by its mangled name: N4loom.., whose first template argument is d."""
    ours = OURS in kernel.name or "4loom" in kernel.name
    return ours and "<double" not in kernel.name and not re.search(r"^_Z\w*?Id", kernel.name)


def main():
    kernels = named(kernels_of(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")))
    if not kernels:
        sys.exit("registers: the log says nothing of kernels (nvcc -Xptxas=-v)")
    kernels.sort(key=lambda kernel: -kernel.registers)
    print(f"{len(kernels)} kernels; the most registers:")
    for kernel in kernels[:SHOWN]:
        print(f"  {kernel.registers:4} {kernel.name[:150]}")
    spilling = [kernel for kernel in kernels if kernel.spilled]
    for kernel in spilling:
        print(f"spills {kernel.spilled} bytes: {kernel.name[:200]}")
    hot = [kernel for kernel in spilling if is_hot(kernel)]
    print(f"{len(spilling)} kernels spill registers, {len(hot)} of them ours and not of f64")
    return 1 if hot else 0


if __name__ == "__main__":
    sys.exit(main())
