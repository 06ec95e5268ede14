# SPDX-License-Identifier: Apache-2.0
"""What was expected of a GPU before anything had run on one: rows of the tables of docs/benchmarks/gpu_predictions.md,
| row | case | predicted | why |, the first two regular expressions. The report prints them beside what it measures."""
import re


class Predictions:
    def __init__(self, page):
        self.told = []
        for line in page.read_text(encoding="utf-8").splitlines() if page.exists() else []:
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) == 4 and cells[0].startswith("`"):
                self.told.append((cells[0].strip("`"), cells[1].strip("`"), cells[2]))

    def of(self, row, case):
        """The text of the first that fits, or nothing."""
        return next((text for rows, cases, text in self.told if re.search(rows, row) and re.search(cases, case)), "")
