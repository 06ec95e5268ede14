#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""data/unicode_ranges.h against Python's own tables: unicode_ranges.py SOURCE_ROOT [--write].

Versions of Unicode differ in what they assign, so only code points that this Python's version knows are compared.
--write makes the header anew; from unicodedata2 (PyPI) where that is installed, which comes in the version one asks for.
"""
import pathlib
import re
import sys
import unicodedata

try:
    import unicodedata2 as tables
except ImportError:
    tables = unicodedata

KINDS = {"letter": "L", "number": "N"}
HEADER = """// Unicode {version}: the code points whose general category is letter (L) or number (N), as ascending limits:
// those in [limit 0, limit 1), [limit 2, limit 3), ... have it. Written by tests/unicode_ranges.py.
#pragma once

#include <array>
#include <cstdint>

namespace loom::data {{

// clang-format off
{arrays}
// clang-format on

}}  // namespace loom::data
"""


def limits(category):
    out, inside = [], False
    for code in range(0x110001):
        if (code < 0x110000 and tables.category(chr(code))[0] == category) != inside:
            out.append(code)
            inside = not inside
    return out


def array(kind, numbers):
    lines, line = [], "   "
    for number in numbers:
        word = f" {number:#x},"
        if len(line) + len(word) > 118:
            lines.append(line)
            line = "   "
        line += word
    body = "\n".join([*lines, line]).rstrip(",")
    return f"inline constexpr std::array<uint32_t, {len(numbers)}> {kind}_limits{{\n{body}}};"


def main():
    path = pathlib.Path(sys.argv[1]) / "data/unicode_ranges.h"
    if "--write" in sys.argv[2:]:
        arrays = "\n\n".join(array(kind, limits(category)) for kind, category in KINDS.items())
        path.write_text(HEADER.format(version=tables.unidata_version, arrays=arrays), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    wrong = 0
    for kind, category in KINDS.items():
        numbers = [int(n, 16) for n in re.search(kind + r"_limits\{([^}]*)\}", text)[1].split(",")]
        assert numbers == sorted(set(numbers)) and len(numbers) % 2 == 0, kind
        members = {code for begin, end in zip(numbers[::2], numbers[1::2]) for code in range(begin, end)}
        for code in range(0x110000):
            known = unicodedata.category(chr(code))
            if known != "Cn" and (known[0] == category) != (code in members):
                print(f"U+{code:04X} is {known} in Unicode {unicodedata.unidata_version}, a {kind} in {path}: "
                      f"{code in members}")
                wrong += 1
    print(f"unicode_ranges: {wrong} code points differ from Unicode {unicodedata.unidata_version}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
