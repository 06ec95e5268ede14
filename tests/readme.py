#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's program compiles, as it stands: readme.py COMPILER INCLUDE_DIR README"""
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
