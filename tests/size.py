#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One concept, one file pair: bounds the length of the library's files and refuses names that say nothing. And every
top-level folder has a README.

usage: size.py SOURCE_ROOT
"""
import pathlib
import re
import sys

LIBRARY = ["accelerators", "tensor", "autograd", "nn", "data", "distributed", "fabric"]
FOLDERS = {*LIBRARY, "tools", "tests", "bench", "examples", "docs", "cmake", "scripts"}
IGNORED = {"build", "runs"}  # what building and running leave behind
SUFFIXES = {".h", ".def", ".cpp", ".cu", ".cuh"}
MOST_LINES = 300
VAGUE = re.compile(r"(^|_)(base|impl|utils?|helpers?|managers?|common|misc)$")


def main():
    root = pathlib.Path(sys.argv[1])
    errors, lengths = [], []
    for entry in root.iterdir():
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in FOLDERS | IGNORED:
            errors.append(f"{entry.name}/: not one of the top-level folders")
    for folder in sorted(FOLDERS):
        if not (root / folder / "README.md").is_file():
            errors.append(f"{folder}/: has no README.md, which says what it is and how to add to it")
    for folder in LIBRARY:
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root).as_posix()
            if VAGUE.search(path.stem):
                errors.append(f"{name}: a file or folder is named for its concept")
            if path.suffix in SUFFIXES:
                lines = len(path.read_text(encoding="utf-8").splitlines())
                lengths.append((lines, name))
                if lines > MOST_LINES:
                    errors.append(f"{name}: {lines} lines, more than {MOST_LINES}: split it by concept")
    lengths.sort(reverse=True)
    print(f"{len(lengths)} files, {sum(lines for lines, _ in lengths)} lines; the longest:")
    for lines, name in lengths[:5]:
        print(f"  {lines:4} {name}")
    for error in sorted(errors):
        print(f"error: {error}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
