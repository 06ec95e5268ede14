#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's program compiles, as it stands, and docs/environment.md has every variable that the library reads, and no
other: readme.py COMPILER INCLUDE_DIR README"""
import pathlib
import re
import subprocess
import sys

compiler, include, readme = sys.argv[1:]
blocks = re.findall(r"^```cpp\n(.*?)^```", open(readme, encoding="utf-8").read(), re.S | re.M)
programs = [block for block in blocks if "int main(" in block]
if not programs:
    sys.exit("readme: no program in " + readme)
for program in programs:
    command = [compiler, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", include, "-x", "c++", "-"]
    subprocess.run(command, input=program, text=True, check=True)
print(f"readme: {len(programs)} program compiles")

root = pathlib.Path(readme).parent
page = (root / "docs/environment.md").read_text(encoding="utf-8")
documented = set(re.findall(r"^\| `(LOOM_\w+)` \|", page, re.M))
read = set()
for folder in ("accelerators", "tensor", "autograd", "nn", "data", "distributed", "fabric"):
    for path in (root / folder).rglob("*.cpp"):
        read |= set(re.findall(r'"(LOOM_[A-Z0-9_]+)"', path.read_text(encoding="utf-8")))
if read != documented:
    sys.exit(f"readme: docs/environment.md lacks {sorted(read - documented)}, has besides {sorted(documented - read)}")

# Defaults that stand in headers, and what the page says of them.
DEFAULTS = {
    "LOOM_TIMEOUT": ("distributed/communicator.h", r"timeout = std::chrono::minutes\((\d+)\)", lambda m: str(60 * int(m))),
    "LOOM_MPI_MODE": ("distributed/mpi.h", r"MpiMode mode = MpiMode::(\w+);", lambda m: f"`{m}`"),
}
for name, (header, pattern, as_documented) in DEFAULTS.items():
    found = re.search(pattern, (root / header).read_text(encoding="utf-8"))
    said = re.search(rf"^\| `{name}` \| .* \| (.*?) \| .* \|$", page, re.M)
    if not found or not said or as_documented(found[1]) != said[1]:
        sys.exit(f"readme: docs/environment.md says that {name} is {said and said[1]} by default, "
                 f"{header} {found and as_documented(found[1])}")
print(f"readme: {len(read)} environment variables, {len(DEFAULTS)} defaults")
