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
documented = set(re.findall(r"^\| `(LOOM_\w+)` \|", (root / "docs/environment.md").read_text(encoding="utf-8"), re.M))
read = set()
for folder in ("accelerators", "tensor", "autograd", "nn", "data", "distributed", "fabric"):
    for path in (root / folder).rglob("*.cpp"):
        read |= set(re.findall(r'"(LOOM_[A-Z_]+)"', path.read_text(encoding="utf-8")))
if read != documented:
    sys.exit(f"readme: docs/environment.md lacks {sorted(read - documented)}, has besides {sorted(documented - read)}")
print(f"readme: {len(read)} environment variables")
