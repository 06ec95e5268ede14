#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a library runs on every x86-64: no instruction in it uses a vector register wider than SSE's, and that a
plugin shows nothing but its entry.

usage: portable.py OBJDUMP LIBRARY [PLUGIN...]
"""
import re
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wide_functions(objdump, library):
    """Names of the functions of library that use AVX registers."""
    found, name = set(), ""
    for line in output(objdump, "-dC", "--no-show-raw-insn", library).splitlines():
        if line.endswith(">:"):
            name = line.partition("<")[2][:-2]
        elif re.search(r"%[yz]mm\d", line):
            found.add(name)
    return found


def visible(objdump, plugin):
    """What a plugin defines for others; weak symbols of the standard library apart, which nobody looks for there."""
    for line in output(objdump, "-TC", plugin).splitlines():
        match = re.match(r"[0-9a-f]+ (g|u).{5}\S* *\S+\s+[0-9a-f]+\s+(\S.*)", line)
        if match and "*UND*" not in line and "std::" not in line:
            yield match.group(2).split()[-1]


def main():
    objdump, library, *plugins = sys.argv[1:]
    errors = [f"{library}: {name} uses AVX registers" for name in sorted(wide_functions(objdump, library))]
    for plugin in plugins:
        if set(visible(objdump, plugin)) != {"loom_cpu_kernels"}:
            errors.append(f"{plugin}: shows {sorted(visible(objdump, plugin))}, not its entry alone")
    print("\n".join(errors) or "ok")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
