# SPDX-License-Identifier: Apache-2.0
"""The report as markdown."""


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def case_line(name, case):
    theirs, ratio, limit = "", "", ""
    if "theirs" in case:
        variant = f" ({case['variant']})" if case["variant"] else ""
        theirs = f"{number(case['theirs'])}{variant}"
        ratio = f"{case['ratio']:.2f} ({case['ratio_min']:.2f}..{case['ratio_max']:.2f})"
    if "limit" in case:
        limit = number(case["limit"])
    return f"| {name} | {case['unit']} | {number(case['ours'])} | {theirs} | {ratio} | {limit} |"


def markdown(report):
    about = report["machine"]
    lines = [f"# Benchmarks, {about['date']}, {about['cpu']}", ""]
    lines += [f"- {key}: {value}" for key, value in about.items() if key != "date" and value]
    lines += [f"- command: `{report['command']}`; {report['runs']} runs of each side by turns, medians",
              "- ratio: above 1 where Loom is better; least and greatest of the pairs of runs in brackets"]
    busiest = max(report["busy_cores"].values(), default=0)
    if busiest > 0.2:
        lines += [f"- **the machine was not idle**: other programs kept up to {busiest:g} cores busy"]
    for name, row in report["rows"].items():
        lines += ["", f"## {name}", "", row["what"], ""]
        if "cases" not in row:
            lines += [f"{key}: {row[key].splitlines()[0]}" for key in ("skipped", "failed") if key in row]
            continue
        lines += ["| | unit | Loom | peer | ratio | limit |", "| --- | --- | ---: | ---: | ---: | ---: |"]
        lines += [case_line(case, values) for case, values in row["cases"].items()]
    if report.get("sizes"):
        lines += ["", "## sizes", "", "shared libraries, Loom's without symbols", "", "| | MiB |", "| --- | ---: |"]
        lines += [f"| {name} | {size / 2**20:.1f} |" for name, size in report["sizes"].items()]
    return "\n".join(lines) + "\n"
